//! Access to etcd: passwords, tokens that expire, certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Client, Error};
use fleetd::store::{EtcdConfig, EtcdStore, Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::time::sleep;

use super::etcd::Etcd;
use super::laws::{list, next, put, watch, write};
use super::{etcd_config, etcd_store};

const PASSWORD: &str = "correct horse";
/// Longer than a token's lifetime. etcd checks once a second.
const EXPIRY: Duration = Duration::from_millis(2500);

/// Returns an etcd that only root may use, with tokens that live for a second.
async fn guarded() -> Option<Etcd> {
    let etcd = Etcd::start_with(&["--auth-token-ttl", "1"]).await?;
    guard(etcd.endpoint())
        .await
        .expect("access is not limited yet");
    Some(etcd)
}

async fn guard(endpoint: &str) -> Result<(), Error> {
    let mut client = Client::connect([endpoint], None).await?;
    client.user_add("root", PASSWORD, None).await?;
    client.role_add("root").await?;
    client.user_grant_role("root", "root").await?;
    client.user_add("guest", PASSWORD, None).await?;
    client.auth_enable().await?;
    Ok(())
}

fn store_of(etcd: &Etcd, user: &str, password: &str) -> EtcdStore {
    let config = EtcdConfig {
        username: Some(user.into()),
        password: Some(password.into()),
        ..etcd_config(&[etcd])
    };
    EtcdStore::new(config).expect("valid settings")
}

async fn rejection(store: &EtcdStore) -> String {
    match store.list(&[""]).await {
        Err(StoreError::Denied(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_password_is_checked_and_the_answer_says_what_to_do() {
    let Some(etcd) = guarded().await else {
        return;
    };
    let at = format!("etcd {}: ", etcd.endpoint());
    list(&store_of(&etcd, "root", PASSWORD), &[""]).await;

    let wrong = rejection(&store_of(&etcd, "root", "wrong")).await;
    assert!(wrong.starts_with(&at), "{wrong}");
    assert!(
        wrong.ends_with("; check etcd_username and etcd_password"),
        "{wrong}"
    );

    let none = rejection(&etcd_store(&[&etcd])).await;
    assert!(
        none.ends_with("; set etcd_username and etcd_password"),
        "{none}"
    );

    let guest = rejection(&store_of(&etcd, "guest", PASSWORD)).await;
    assert!(
        guest.contains("permission denied; grant this etcd user a role")
            && guest.ends_with("(this was to read )"),
        "{guest}"
    );
}

#[tokio::test]
async fn user_without_authentication_in_etcd_is_reported() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let text = rejection(&store_of(&etcd, "root", PASSWORD)).await;
    assert!(
        text.ends_with("remove etcd_username, or enable it in etcd"),
        "{text}"
    );
}

#[tokio::test]
async fn expired_token_is_renewed_without_an_error() {
    let Some(mut etcd) = guarded().await else {
        return;
    };
    let store = store_of(&etcd, "root", PASSWORD);
    let begin = write(&store, [put("a", "1")]).await;
    let lease = store
        .create_lease(Duration::from_secs(30))
        .await
        .expect("granted");
    store.renew(lease).await.expect("in time");
    let mut open = watch(&store, &["a"], begin).await;
    sleep(EXPIRY).await;
    write(&store, [put("a", "2")]).await;
    next(&mut open).await.expect("an open watch goes on");
    store.renew(lease).await.expect("in time");
    sleep(EXPIRY).await;
    let mut new = watch(&store, &["a"], begin).await;
    next(&mut new)
        .await
        .expect("it was watched with a new token");

    // A restarted etcd knows none of its tokens.
    etcd.restart();
    etcd.healthy().await;
    store.renew(lease).await.expect("in time");
    write(&store, [put("a", "3")]).await;
}

/// An authority and its certificate for loopback, as PEM files.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
        let dir = tempfile::tempdir().expect("a place for the files");
        let files = [
            ("ca", authority.pem()),
            ("cert", leaf.pem()),
            ("key", key.serialize_pem()),
        ];
        for (name, pem) in files {
            fs::write(dir.path().join(name), pem).expect("there is room");
        }
        Ok(Self { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

async fn start_with_certificates(files: &Certificates) -> Option<Etcd> {
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| files.file(name));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let (ca, cert, key) = (text(&ca), text(&cert), text(&key));
    let arguments = [
        "--cert-file",
        &cert,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
        "--client-cert-auth",
    ];
    Etcd::start_with(&arguments).await
}

#[tokio::test]
async fn certificates_are_shown_and_checked_on_both_sides() {
    let files = Certificates::new().expect("certificates");
    let Some(etcd) = start_with_certificates(&files).await else {
        return;
    };
    let good = EtcdConfig {
        ca_file: Some(files.file("ca")),
        cert_file: Some(files.file("cert")),
        key_file: Some(files.file("key")),
        ..etcd_config(&[&etcd])
    };
    let store = EtcdStore::new(good.clone()).expect("valid settings");
    write(&store, [put("a", "1")]).await;

    let nameless = EtcdConfig {
        cert_file: None,
        key_file: None,
        ..good.clone()
    };
    let store = EtcdStore::new(nameless).expect("valid settings");
    let error = store
        .list(&[""])
        .await
        .expect_err("no certificate was shown");
    println!("without a certificate: {error}");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");

    let others = Certificates::new().expect("certificates");
    let mistrusting = EtcdConfig {
        ca_file: Some(others.file("ca")),
        ..good
    };
    let store = EtcdStore::new(mistrusting).expect("valid settings");
    let error = store
        .list(&[""])
        .await
        .expect_err("signed by another authority")
        .to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn missing_file_is_named_when_needed_and_read_later() {
    let config = EtcdConfig {
        endpoints: vec!["https://127.0.0.1:9".to_owned()],
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..EtcdConfig::default()
    };
    let store = EtcdStore::new(config).expect("no reason not to start");
    let error = store.list(&[""]).await.expect_err("there is no such file");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let text = "etcd_cafile /nonexistent/ca.pem: No such file";
    assert!(error.to_string().contains(text), "{error}");
}
