//! Bodies of requests: whole, or line by line, and never more in memory than is allowed.

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::PATIENCE;

/// Why a request is not answered as it asks to be.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("more than {limit} bytes: --max-request allows no more");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
}

/// The next piece of a body, `None` at its end.
async fn next_piece(body: &mut BodyDataStream) -> Result<Option<Bytes>, Refusal> {
    let Ok(piece) = timeout(PATIENCE, body.next()).await else {
        let message = format!("nothing came for {} seconds", PATIENCE.as_secs());
        return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message));
    };
    piece
        .transpose()
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("cannot be read: {error}")))
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let (mut body, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = next_piece(&mut body).await? {
        if bytes.len() + piece.len() > limit {
            return Err(Refusal::too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The lines of a body, as they come.
pub(super) struct Lines {
    body: BodyDataStream,
    /// What has come and is not yet looked at.
    piece: Bytes,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    is_too_long: bool,
    /// Number of lines that are over.
    number: usize,
    limit: usize,
    is_over: bool,
}

impl Lines {
    /// Lines of at most `limit` bytes each.
    pub(super) fn new(body: Body, limit: usize) -> Self {
        Self {
            body: body.into_data_stream(),
            piece: Bytes::new(),
            line: Vec::new(),
            is_too_long: false,
            number: 0,
            limit,
            is_over: false,
        }
    }

    /// The next line that is not blank, or what is wrong with it, and its number from 1. After an error of
    /// the connection there are no more.
    pub(super) async fn next(&mut self) -> Option<(usize, Result<Vec<u8>, Refusal>)> {
        while !self.is_over {
            let end = self.piece.iter().position(|&byte| byte == b'\n');
            let piece = self.piece.split_to(end.map_or(self.piece.len(), |end| end + 1));
            let content = piece.strip_suffix(b"\n").unwrap_or(&piece);
            self.is_too_long |= self.line.len() + content.len() > self.limit;
            match self.is_too_long {
                true => self.line.clear(),
                false => self.line.extend_from_slice(content),
            }
            if end.is_none() {
                match next_piece(&mut self.body).await {
                    Ok(Some(piece)) => {
                        self.piece = piece;
                        continue;
                    }
                    Ok(None) => self.is_over = true,
                    Err(refusal) => {
                        self.is_over = true;
                        return Some((self.number + 1, Err(refusal)));
                    }
                }
            }
            self.number += 1;
            if std::mem::take(&mut self.is_too_long) {
                return Some((self.number, Err(Refusal::too_large(self.limit))));
            }
            let line = std::mem::take(&mut self.line);
            if !line.trim_ascii().is_empty() {
                return Some((self.number, Ok(line)));
            }
        }
        None
    }
}
