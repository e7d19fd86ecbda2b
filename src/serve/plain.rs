//! Plain HTTP/1.1 for hooks and the admin interface: few connections, slow ones cut off, over TCP and over a Unix socket.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::quota::{Origin, Quota};

/// Connections at a time, a listener. Operators, scrapers and forges: no crowd.
const MOST_CONNECTIONS: usize = 64;

/// For the head of a request; also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// After a failure to accept (no file descriptors, say).
const PAUSE: Duration = Duration::from_millis(200);

/// Of them, connections at a time of one address: whoever holds these keeps places for others free.
const MOST_OF_ADDRESS: u32 = 32;

/// Serves over TCP until `stop` says true. Connections without a place are closed at once, and counted. Requests know where they come from
/// ([`Origin`]).
pub(super) async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    turned_away: impl Fn(),
    stop: watch::Receiver<bool>,
) {
    let places = Quota::new(MOST_CONNECTIONS, Some(MOST_OF_ADDRESS));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.take(Origin::of(peer.ip())) {
                    Ok(place) => spawn(stream, router.clone().layer(Extension(Origin::of(peer.ip()))), place, stop.clone()),
                    Err(_) => turned_away(),
                },
                Err(error) => pause(&error).await,
            },
            () = stopped(&stop) => return,
        }
    }
}

/// Serves over a Unix socket until `stop` says true. `who` is called with the user id of each peer.
pub(super) async fn serve_unix(
    listener: UnixListener,
    router: impl Fn(Option<u32>) -> Router,
    stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    while let Some(place) = next_place(&places, &stop).await {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let peer = stream.peer_cred().ok().map(|peer| peer.uid());
                    spawn(stream, router(peer), place, stop.clone());
                }
                Err(error) => pause(&error).await,
            },
            () = stopped(&stop) => return,
        }
    }
}

async fn next_place(places: &Arc<Semaphore>, stop: &watch::Receiver<bool>) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        place = Arc::clone(places).acquire_owned() => place.ok(),
        () = stopped(stop) => None,
    }
}

/// Done once `stop` says true, or nobody is left to say it.
pub(super) async fn stopped(stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    drop(stop.wait_for(|stop| *stop).await);
}

pub(super) async fn pause(error: &std::io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(PAUSE).await;
}

fn spawn<S, P>(stream: S, router: Router, place: P, stop: watch::Receiver<bool>)
where
    P: Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        converse(stream, router, stop).await;
        drop(place);
    });
}

/// Answers the requests of one connection until it ends, or `stop` says true.
pub(super) async fn converse<S>(stream: S, router: Router, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    tokio::select! {
        // How a stranger's connection ends is nobody's concern.
        _ = served.as_mut() => {}
        () = stopped(&stop) => {
            served.as_mut().graceful_shutdown();
            let _ended = tokio::time::timeout(Duration::from_secs(1), served).await;
        }
    }
}
