//! Accepting connections, with bounds on their number and on how long they may say nothing.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::PATIENCE;

/// Connections at a time. Others wait until one of these is closed, which happens to idle ones soon.
const CONNECTIONS: usize = 500;

/// How long accepting rests where the system has no descriptor left, as it may soon have one again.
const REST: Duration = Duration::from_millis(100);

/// Serves until `end` is there. Then no connection is accepted any more, and requests that have begun are
/// answered.
pub(super) async fn serve(listener: TcpListener, router: Router, end: impl Future) {
    let mut builder = http1::Builder::new();
    // The time for headers runs while a connection is idle, too.
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let service = TowerToHyperService::new(router);
    let (places, open) = (Arc::new(Semaphore::new(CONNECTIONS)), GracefulShutdown::new());
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (accept(&listener).await, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut end => break,
        };
        let connection = open.watch(builder.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            // A client that goes away is no error of the server's.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await.and_then(|(stream, _)| prepare(stream)) {
            Ok(stream) => return stream,
            Err(error) => {
                let is_over = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
                if !is_over.contains(&error.kind()) {
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Has answers leave at once, and a connection end whose client takes nothing of its answer for long.
fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(PATIENCE))?;
    Ok(stream)
}
