//! A socket, plain or with TLS around it, that is read and written without buffers of its own while it is idle.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::Connection;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The largest record that TLS has, and so what one look at a socket can bring.
const RECORD: usize = 16 * 1024;

/// Looks at the socket within one call until somebody else has a turn: records may be empty, and come without end.
const MOST_LOOKS: usize = 16;

/// One end of a connection.
#[derive(Debug)]
pub(crate) enum Socket {
    /// As the bytes come.
    Plain(TcpStream),
    /// Through TLS; in a box, because it is thirty times as large.
    Secure(Box<Secure>),
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Secure {
    tcp: TcpStream,
    tls: Connection,
    /// There may be plaintext that nobody took yet: the socket itself need not become readable for it.
    has_more: bool,
}

impl Secure {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        for _ in 0..MOST_LOOKS {
            match self.tls.reader().read(into) {
                Ok(read) => {
                    self.has_more = read > 0;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_more = false,
                // The peer ended without a word of TLS. Messages say themselves where they end, so nothing is lost by that.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            self.tls.read_tls(&mut Way(&self.tcp))?;
            let processed = self.tls.process_new_packets();
            // An answer that TLS itself has to give, or the reason why it ends. It goes along with what is written next, if not now.
            let _flushed = self.flush();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // What was taken before goes first; without this a peer that does not read could be written to for ever.
        self.flush()?;
        let written = self.tls.writer().write_vectored(slices)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Way(&self.tcp))?;
        }
        Ok(())
    }
}

/// What rustls reads from and writes to.
struct Way<'a>(&'a TcpStream);

impl Read for Way<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Way<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// A connection after its handshake.
    pub(crate) fn secure(tcp: TcpStream, mut tls: Connection) -> Self {
        // What a peer that does not read can make us keep.
        tls.set_buffer_limit(Some(RECORD));
        Self::Secure(Box::new(Secure { tcp, tls, has_more: true }))
    }

    /// The certificates that the peer proved to own the key of, its own first; none without TLS, or when it showed none.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Plain(_) => &[],
            Self::Secure(secure) => secure.tls.peer_certificates().unwrap_or_default(),
        }
    }

    /// Waits until there may be something to read. Safe to drop and to call again.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.readable().await,
            Self::Secure(secure) if secure.has_more => Ok(()),
            Self::Secure(secure) => secure.tcp.readable().await,
        }
    }

    /// Waits until there may be room to write. Safe to drop and to call again.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.writable().await,
            Self::Secure(secure) => secure.tcp.writable().await,
        }
    }

    /// Reads what is there; `Ok(0)` is the end.
    pub(crate) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(into),
            Self::Secure(secure) => secure.read(into),
        }
    }

    /// The same, into the room that `into` has left, or some more.
    pub(crate) fn try_read_buf(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read_buf(into),
            Self::Secure(secure) => {
                let mut scratch = [0; RECORD];
                let read = secure.read(&mut scratch)?;
                into.extend_from_slice(&scratch[..read]);
                Ok(read)
            }
        }
    }

    /// Takes as much as there is room for. With TLS some of that may not have left: [`Socket::try_flush`] tells.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Secure(secure) => secure.write(slices),
        }
    }

    /// Hands on what was taken and did not leave yet; `WouldBlock` while something is left.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => secure.flush(),
        }
    }

    /// True when something that was taken did not leave yet.
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => secure.tls.wants_write(),
        }
    }

    const fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => &mut secure.tcp,
        }
    }

    /// Tries again whenever the socket has room.
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match write(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp().poll_write_ready(cx))?,
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let secure = match socket {
            Self::Plain(tcp) => return Pin::new(tcp).poll_read(cx, buffer),
            Self::Secure(secure) => secure,
        };
        loop {
            match secure.read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(secure.tcp.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |socket| socket.try_write_vectored(&[IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_writing(cx, Self::try_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if let Self::Secure(secure) = socket {
            // Asked for more than once, it is said once.
            secure.tls.send_close_notify();
            ready!(socket.poll_writing(cx, Self::try_flush))?;
        }
        Pin::new(socket.tcp()).poll_shutdown(cx)
    }
}
