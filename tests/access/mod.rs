//! The command line, the API and ssh: their users, their rights, and the answers.

mod api_client;
mod api_sockets;
mod bad_requests;
mod completion;
mod ctl_output;
mod etcd_access;
mod etcd_roles;
mod groups;
mod links;
mod names;
mod recorded;
mod remote;
mod root_only;
mod tls;
