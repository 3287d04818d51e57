//! A fleetd for tests: the API over an in-memory registry, with machines that obey at once or on
//! demand.

mod world;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use fleet_core::api::{ErrorBody, ErrorDetail, StatePage, UnitPage, UnitState};
use serde::Serialize;
use serde_json::json;

use world::World;

/// The size of a page, so small that every listing of the tests takes several pages.
const PAGE: usize = 2;

/// The length of a long poll. It is shorter than fleetd's, so a test sees an unchanged response
/// too.
const LONG_POLL: Duration = Duration::from_millis(300);

/// A fleetd that listens on a socket until the test process ends.
pub(crate) struct FakeFleetd {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test thread panics with it")
    }
}

/// The response to a request.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    pub(crate) fn empty(code: u16) -> Self {
        Self {
            code,
            body: String::new(),
            warnings: Vec::new(),
        }
    }

    fn json(value: &impl Serialize) -> Self {
        Self {
            body: serde_json::to_string(value).expect("serialises"),
            ..Self::empty(200)
        }
    }

    pub(crate) fn error(code: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        let body = ErrorBody {
            error: ErrorDetail { code, message },
        };
        Self {
            code,
            ..Self::json(&body)
        }
    }
}

impl FakeFleetd {
    /// Starts one with its socket in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("fleet.sock");
        let listener = UnixListener::bind(&socket).expect("the socket is free");
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                server.world().connections += 1;
                let server = Arc::clone(&server);
                thread::spawn(move || serve(&stream.expect("accepted"), &server));
            }
        });
        Self { socket, shared }
    }

    /// Returns the value for `--endpoint`.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Makes the machines do nothing until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.shared.world().held = true;
    }

    /// Lets the machines do what is wanted of them.
    pub(crate) fn release(&self) {
        self.change(|world| {
            world.held = false;
            world.settle();
        });
    }

    /// Changes the world without fleetctl's knowledge.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        let mut world = self.shared.world();
        change(&mut world);
        world.revision += 1;
        self.shared.changed.notify_all();
    }
}

/// Serves the requests of one connection.
fn serve(stream: &UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).expect("a header");
            let Some((name, value)) = header.trim_end().split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");

        let mut words = request.split(' ');
        let (method, target) = (words.next(), words.next());
        let answer = answer(
            shared,
            method.expect("a method"),
            target.expect("a path"),
            &body,
        );
        let mut head = format!("HTTP/1.1 {} -\r\n", answer.code);
        for warning in &answer.warnings {
            head.push_str(&format!("X-Fleet-Warning: {warning}\r\n"));
        }
        if answer.code != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        // A client that has ended no longer wants the response.
        if write!(&*stream, "{head}\r\n{}", answer.body).is_err() {
            return;
        }
    }
}

fn answer(shared: &Shared, method: &str, target: &str, body: &[u8]) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = decode(path);
    let path = path.strip_prefix("/fleet/v1/").expect("the API's prefix");
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .map(decode)
    };
    let page = parameter("nextPageToken").map_or(0, |token| token.parse().expect("our token"));

    if let (Some(name), Some(after)) = (path.strip_prefix("status/"), parameter("after")) {
        let after: u64 = after.parse().expect("a revision");
        let (world, _) = shared
            .changed
            .wait_timeout_while(shared.world(), LONG_POLL, |world| world.revision <= after)
            .expect("no test thread panics with it");
        return or_404(world.unit_status(name));
    }
    let mut world = shared.world();
    if world.away == method {
        world.unanswered += 1;
        return Answer::error(503, "registry unavailable");
    }
    let answer = match (method, path.split_once('/').unwrap_or((path, ""))) {
        ("GET", ("machines", "")) => Answer::json(&json!({"machines": world.machines()})),
        ("PATCH", ("machines", "")) => {
            world.patch(&serde_json::from_slice::<Vec<_>>(body).expect("a patch"))
        }
        ("GET", ("units", "")) => {
            let mut units = world.units();
            if parameter("currentState").as_deref() == Some("false") {
                units.iter_mut().for_each(|it| it.current_state.clear());
            }
            let (units, next_page_token) = cut(units, page);
            Answer::json(&UnitPage {
                units,
                next_page_token,
            })
        }
        ("GET", ("state", "")) => {
            let mut states = world.states();
            if let Some(only) = parameter("unitName") {
                states.retain(|state| state.name == only);
            }
            assert_eq!(parameter("stream").as_deref(), Some("true"));
            // Ordered by machine, as fleetd sends them.
            states.sort_by(|a, b| (&a.machine_id, &a.name).cmp(&(&b.machine_id, &b.name)));
            let machines = world.machines();
            let address = |state: &UnitState| {
                let machine = machines.iter().find(|it| it.id == state.machine_id)?;
                Some((machine.id.clone(), machine.primary_ip.clone()))
            };
            let lines = states.chunks(PAGE).map(|states| {
                Answer::json(&StatePage {
                    addresses: states.iter().filter_map(address).collect(),
                    states: states.to_vec(),
                    next_page_token: None,
                })
            });
            let mut lines: Vec<String> = lines.map(|line| line.body + "\n").collect();
            if world.forgets > 0 {
                world.forgets -= 1;
                lines.truncate(1);
                lines.push(Answer::error(410, "list again").body);
            }
            Answer {
                body: lines.concat(),
                ..Answer::empty(200)
            }
        }
        ("GET", ("units", name)) => or_404(world.unit(name, parameter("content").is_some())),
        ("PUT", ("units", name)) => world.put(name, serde_json::from_slice(body).expect("a unit")),
        ("DELETE", ("units", name)) => world.destroy(name),
        ("GET", ("status", "")) => Answer::json(&world.cluster_status()),
        ("GET", ("status", name)) => or_404(world.unit_status(name)),
        _ => Answer::error(404, ""),
    };
    shared.changed.notify_all();
    answer
}

fn or_404(found: Option<impl Serialize>) -> Answer {
    found.map_or_else(
        || Answer::error(404, "unit does not exist"),
        |found| Answer::json(&found),
    )
}

fn cut<T>(all: Vec<T>, page: usize) -> (Vec<T>, Option<String>) {
    let more = all.len() > (page + 1) * PAGE;
    let items = all.into_iter().skip(page * PAGE).take(PAGE).collect();
    (items, more.then(|| (page + 1).to_string()))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .expect("text")
        .into_owned()
}
