//! The worker contract, in Rust: how a worker gets its socket, and how it ends.
//!
//! It is the worker the tests drive, too. A file named `behaviour` in the directory it is started in makes it misbehave in the ways
//! a worker can (see `behaviour.rs`); the paths it answers are in `answers.rs`. What a worker of your own needs is in this file and
//! in `socket.rs`:
//!
//! 1. The listening socket is file descriptor 3; a worker with `listen: port` finds a port number in `PORT` instead.
//! 2. What arrives there is HTTP/1.1 with the full path of the request.
//! 3. SIGTERM means: take no more connections, finish the requests in flight, exit with 0.

mod answers;
mod behaviour;
mod socket;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::Behaviour;
use crate::socket::{Socket, Stream};

/// What all requests share.
struct Worker {
    behaviour: Behaviour,
    /// Cancelled by SIGTERM: connections end with the request in flight, and what has no end of its own (event streams, tunnels) ends.
    stopping: CancellationToken,
    /// Connections and WebSockets: all that has to be finished before the process may exit.
    open: TaskTracker,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let behaviour = match Behaviour::load("behaviour") {
        Ok(behaviour) => behaviour,
        Err(error) => return failed(&error),
    };
    behaviour.act_at_start();
    // Asked for before anything else: a SIGTERM that comes while we start must not kill us in the middle.
    let terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(error) => return failed(&error.to_string()),
    };
    tokio::time::sleep(behaviour.start_delay).await;
    match Socket::from_environment().await {
        Ok(socket) => run(socket, behaviour, terminated).await,
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}

fn failed(reason: &str) -> ExitCode {
    // Standard error is the journal; systemd knows which unit wrote the line.
    eprintln!("contract: {reason}");
    ExitCode::FAILURE
}

/// Serves until SIGTERM, then finishes.
async fn run(socket: Socket, behaviour: Behaviour, mut terminated: Signal) {
    let worker = Arc::new(Worker {
        behaviour,
        stopping: CancellationToken::new(),
        open: TaskTracker::new(),
    });
    // Connections of a worker that never becomes ready: accepted, and left without an answer.
    let mut ignored = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = terminated.recv() => match worker.behaviour.ignore_term {
                true => continue,
                false => break,
            },
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Most likely too many open files. Another connection has to end first, so trying again at once would only burn CPU.
                eprintln!("contract: accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if worker.behaviour.never_ready {
            ignored.push(stream);
            continue;
        }
        worker.open.spawn(serve(Arc::clone(&worker), stream));
    }
    // No more connections from here on. The socket itself belongs to systemd: what arrives there now waits for the next start.
    drop(socket);
    worker.stopping.cancel();
    worker.open.close();
    worker.open.wait().await;
}

/// Serves one connection until its client closes it, or until the request in flight when the worker is stopped is answered.
async fn serve(worker: Arc<Worker>, stream: Box<dyn Stream>) {
    let answering = Arc::clone(&worker);
    let service = service_fn(move |request| answers::answer(Arc::clone(&answering), request));
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    // A client that went away is its own business; there is nobody left to tell.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = worker.stopping.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
