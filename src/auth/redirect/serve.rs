//! Answering the browser: who may connect, whose answer counts, and when the port is given back.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::{Listener, connection};
use crate::auth::callback::paste::{PasteError, judge_paste};
use crate::auth::callback::{Expectation, RedirectUri, Reply, SuccessUrl};
use crate::auth::page::Names;
use crate::secret::Secret;

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 16;
/// How long the port stays open after the outcome, so that a reload of the page shows it again.
pub const LINGER: Duration = Duration::from_secs(10);
/// How long a connection may be silent when others wait for its place.
const GRACE: Duration = Duration::from_millis(200);
/// How often a full house is looked over.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Pause after a failed accept, as when the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last pages may take to go out.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How the browser is answered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who signs in where.
    pub names: Names,
    /// Where the browser goes after success (`--auth-success-url`), instead of our page.
    pub success_url: Option<SuccessUrl>,
    /// How long the browser waits for the token exchange (`--auth-timeout`) before the page says so, status 504.
    pub answer_within: Duration,
}

/// What became of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The tokens are here.
    Success,
    /// The authorization server, or the person there, said no.
    Denied,
    /// No token came of it.
    Failed {
        /// One sentence for a person: why. It is escaped and cut for the page.
        reason: String,
    },
}

/// The pending sign-in's answer, and the browser that waits for the outcome.
#[derive(Debug)]
pub struct Callback {
    /// What the authorization server answered. Compare `iss` first.
    pub reply: Reply,
    /// Says what became of it.
    pub responder: Responder,
}

/// Tells the waiting browser what became of the sign-in. Dropped without a word, it tells of a failure.
#[derive(Debug)]
pub struct Responder {
    outcome: Arc<watch::Sender<Option<Outcome>>>,
}

impl Responder {
    /// Shows the outcome now, and at each reload while the port is open.
    pub fn finish(self, outcome: Outcome) {
        self.outcome.send_if_modified(|shown| shown.is_none() && shown.replace(outcome).is_none());
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.outcome.send_if_modified(|shown| {
            let reason =
                || Outcome::Failed { reason: "The program stopped before the sign-in was finished.".to_owned() };
            shown.is_none() && shown.replace(reason()).is_none()
        });
    }
}

/// A listener that answers. Dropped, it gives the port back at once; see [`Serving::linger`] and [`Serving::close`].
#[derive(Debug)]
pub struct Serving {
    shared: Arc<Shared>,
    callbacks: mpsc::Receiver<Callback>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Answers from now on. `state` is that of the pending sign-in.
    pub fn serve(self, state: Secret, settings: Settings) -> Serving {
        let (sender, callbacks) = mpsc::channel(1);
        let (closing, closed) = watch::channel(false);
        let shared = Arc::new(Shared {
            expected: Expectation::new(self.redirect, state),
            settings,
            taken: Mutex::new(None),
            outcome: Arc::new(watch::channel(None).0),
            callbacks: sender,
        });
        let task = tokio::spawn(run(self.sockets, Arc::clone(&shared), closed));
        Serving { shared, callbacks, closing, task }
    }
}

impl Serving {
    /// Where the browser comes back to.
    pub fn redirect_uri(&self) -> &RedirectUri {
        self.shared.expected.redirect()
    }

    /// Waits for the sign-in's answer by way of the browser. There is one at most; after it, or after [`Self::paste`]
    /// took one, this waits for ever. Cancel safe.
    pub async fn callback(&mut self) -> Callback {
        match self.callbacks.recv().await {
            Some(callback) => callback,
            None => std::future::pending().await,
        }
    }

    /// Takes the sign-in's answer by way of a person, by the same rules and just as once.
    pub fn paste(&self, text: &str) -> Result<Callback, PasteError> {
        let reply = judge_paste(text, &self.shared.expected)?;
        match self.shared.claim(&reply) {
            Claim::First => Ok(self.shared.callback(reply)),
            Claim::Same | Claim::Other => Err(PasteError::AlreadyUsed),
        }
    }

    /// Stays for [`LINGER`] in the background, for reloads of the page, then gives the port back; sooner when the task is ended.
    pub fn linger(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            sleep(LINGER).await;
            self.close().await;
        })
    }

    /// Takes no more connections, lets the pages that are due go out (bounded), gives the port back.
    pub async fn close(mut self) {
        self.closing.send_replace(true);
        let _ = timeout(CLOSE_WAIT, &mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What connections have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) expected: Expectation,
    pub(super) settings: Settings,
    /// The answer that counts: a code is used once (RFC 6749 section 4.1.2).
    taken: Mutex<Option<Reply>>,
    outcome: Arc<watch::Sender<Option<Outcome>>>,
    callbacks: mpsc::Sender<Callback>,
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The one that counts.
    First,
    /// That one again.
    Same,
    /// Another: it came too late.
    Other,
}

impl Shared {
    fn claim(&self, reply: &Reply) -> Claim {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match &*taken {
            None => {
                *taken = Some(reply.clone());
                Claim::First
            }
            Some(first) if first == reply => Claim::Same,
            Some(_) => Claim::Other,
        }
    }

    fn callback(&self, reply: Reply) -> Callback {
        Callback { reply, responder: Responder { outcome: Arc::clone(&self.outcome) } }
    }

    /// Hands the first answer to the owner.
    pub(super) fn submit(&self, reply: Reply) -> Claim {
        let claim = self.claim(&reply);
        if claim == Claim::First {
            // An owner that is gone drops the responder, which tells the browser.
            let _ = self.callbacks.try_send(self.callback(reply));
        }
        claim
    }

    /// The outcome, or `None` when the browser has waited long enough.
    pub(super) async fn outcome(&self) -> Option<Outcome> {
        let mut outcome = self.outcome.subscribe();
        let known = timeout(self.settings.answer_within, outcome.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }
}

async fn run(sockets: Vec<TcpListener>, shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let mut house = House::default();
    let mut turn = 0;
    loop {
        let accepted = async {
            house.make_room().await;
            accept(&sockets, &mut turn).await
        };
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            stream = accepted => house.admit(stream, &shared),
        }
        // The new one may speak before the next takes its place.
        tokio::task::yield_now().await;
    }
    drop(sockets);
    house.empty().await;
}

/// The next connection of any socket; each has its turn.
async fn accept(sockets: &[TcpListener], turn: &mut usize) -> TcpStream {
    loop {
        let next = poll_fn(|context| {
            *turn = turn.wrapping_add(1);
            let (head, tail) = sockets.split_at(*turn % sockets.len().max(1));
            for socket in tail.iter().chain(head) {
                if let Poll::Ready(accepted) = socket.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        });
        match next.await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!("the sign-in's port: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open, oldest first.
#[derive(Default)]
struct House {
    tasks: JoinSet<()>,
    guests: VecDeque<Guest>,
}

struct Guest {
    task: AbortHandle,
    since: Instant,
    /// It brought the sign-in's answer and waits for the outcome: it stays.
    expected: Arc<AtomicBool>,
}

impl House {
    fn admit(&mut self, stream: TcpStream, shared: &Arc<Shared>) {
        let expected = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(connection::answer(stream, Arc::clone(shared), Arc::clone(&expected)));
        self.guests.push_back(Guest { task, since: Instant::now(), expected });
    }

    /// Waits for a place. In a full house the one that has been silent longest leaves, but nobody within [`GRACE`]:
    /// a browser sends its request at once, junk does not. Cancel safe.
    async fn make_room(&mut self) {
        loop {
            self.sweep();
            if self.guests.len() < MAX_CONNECTIONS {
                return;
            }
            let silent = self
                .guests
                .iter()
                .position(|guest| !guest.expected.load(Ordering::Relaxed) && guest.since.elapsed() >= GRACE);
            match silent.and_then(|position| self.guests.remove(position)) {
                Some(guest) => guest.task.abort(),
                None => sleep(FULL_PAUSE).await,
            }
        }
    }

    fn sweep(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.guests.retain(|guest| !guest.task.is_finished());
    }

    /// Lets those stay who wait for their page.
    async fn empty(&mut self) {
        for guest in &self.guests {
            if !guest.expected.load(Ordering::Relaxed) {
                guest.task.abort();
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }
}
