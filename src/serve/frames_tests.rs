//! Tests of the frame reader: whole messages, fragments, every way to break the protocol, and no memory when idle.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1000;

/// A client's frame with a mask.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        long => bytes.extend([0x80 | 126, (long >> 8) as u8, long as u8]),
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// Everything that comes out when the bytes arrive in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> (Vec<Incoming>, Option<Close>, FrameReader) {
    let (mut reader, mut out) = (FrameReader::default(), Vec::new());
    for chunk in bytes.chunks(piece.max(1)) {
        reader.buffer.extend_from_slice(chunk);
        loop {
            match reader.next(LIMIT) {
                Ok(Some(incoming)) => out.push(incoming),
                Ok(None) => break,
                Err(close) => return (out, Some(close), reader),
            }
        }
    }
    (out, None, reader)
}

#[test]
fn messages_come_whole_however_they_arrive() {
    let bytes = [
        frame(0x82, b"one"),
        frame(0x02, b"tw"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, b"o"),
        frame(0x8a, b""),
        frame(0x82, &[7; 300]),
        frame(0x88, &[0x03, 0xe8]),
    ]
    .concat();
    let expected = vec![
        Incoming::Message("one".into()),
        Incoming::Ping("ping".into()),
        Incoming::Message("two".into()),
        Incoming::Pong,
        Incoming::Message(vec![7; 300].into()),
        Incoming::Close(Some(1000)),
    ];
    for piece in [1, 2, 7, 64, bytes.len()] {
        let (out, close, reader) = read(&bytes, piece);
        assert_eq!((out, close), (expected.clone(), None), "in pieces of {piece}");
        assert!(!reader.is_within_message());
        assert_eq!(reader.buffer.capacity(), 0, "an idle connection owns no buffer");
    }
}

impl Clone for Incoming {
    fn clone(&self) -> Self {
        match self {
            Self::Message(bytes) => Self::Message(bytes.clone()),
            Self::Ping(bytes) => Self::Ping(bytes.clone()),
            Self::Pong => Self::Pong,
            Self::Close(code) => Self::Close(*code),
        }
    }
}

#[test]
fn what_breaks_the_protocol_closes_with_its_code() {
    let unmasked = vec![0x82, 0x01, 0x00];
    let huge = [vec![0x82, 0x80 | 127], vec![0xff; 8], vec![0; 4]].concat();
    for (what, bytes, code) in [
        ("text", frame(0x81, b"hello"), CloseCode::Unsupported),
        ("too large", frame(0x82, &[0; LIMIT + 1]), CloseCode::Size),
        ("too large in fragments", [frame(0x02, &[0; 600]), frame(0x80, &[0; 600])].concat(), CloseCode::Size),
        ("an absurd length", huge, CloseCode::Size),
        ("no mask", unmasked, CloseCode::Protocol),
        ("compressed", frame(0xc2, b"x"), CloseCode::Protocol),
        ("an unknown kind", frame(0x83, b"x"), CloseCode::Protocol),
        ("a continuation of nothing", frame(0x80, b"x"), CloseCode::Protocol),
        ("a message within another", [frame(0x02, b"x"), frame(0x82, b"y")].concat(), CloseCode::Protocol),
        ("a long ping", frame(0x89, &[0; 126]), CloseCode::Protocol),
        ("a ping in fragments", frame(0x09, b"x"), CloseCode::Protocol),
    ] {
        let (out, close, reader) = read(&bytes, 5);
        assert_eq!(out, vec![], "{what}");
        assert_eq!(close.map(|close| close.code), Some(code), "{what}");
        assert!(reader.buffer.capacity() < 4 * LIMIT, "{what}: refused before memory is taken");
    }
}

#[test]
fn frames_to_a_client_have_no_mask() {
    let out = OutFrame::message("ab".into(), Some("cd".into()));
    assert_eq!((&out.header[..], &out.head[..], &out.shared[..]), (&[0x82, 0x04][..], &b"ab"[..], &b"cd"[..]));
    assert_eq!(&OutFrame::message(Bytes::new(), Some(vec![0; 300].into())).header[..], &[0x82, 126, 1, 44]);
    assert_eq!(&OutFrame::message(Bytes::new(), Some(vec![0; 70_000].into())).header[..4], &[0x82, 127, 0, 0]);
    let close = OutFrame::close(&Close::new(CloseCode::Away, "bye"));
    assert_eq!((&close.header[..], &close.head[..]), (&[0x88, 0x05][..], &[0x03, 0xe9, b'b', b'y', b'e'][..]));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let (_out, _close, _reader) = read(&bytes, piece);
    }
}

#[tokio::test]
async fn without_room_no_more_is_read_than_shows_that_some_is_needed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let whole = frame(0x82, &[7; 60_000]);
    let parts = [frame(0x02, &[7; 8_000]), frame(0x00, &[7; 100]), frame(0x80, &[7; 51_900])].concat();
    for bytes in [whole, parts] {
        let mut client =
            tokio::net::TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (server, _) = listener.accept().await.expect("a client");
        tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await.expect("it has room for that");
        let (mut socket, mut reader, mut has_room) = (Socket::Plain(server), FrameReader::default(), false);
        let message = loop {
            if let Some(message) = reader.next(60_000).expect("in order") {
                break message;
            }
            if reader.is_large() && !has_room {
                let most = SMALL_MESSAGE + LONGEST_HEADER + 1;
                assert!(reader.arrived() <= most && reader.buffer.capacity() <= 2 * most, "{}", reader.arrived());
                has_room = true;
            }
            let readable = tokio::time::timeout(std::time::Duration::from_secs(30), socket.readable()).await;
            readable.expect("in time").expect("open");
            match reader.fill(&mut socket, has_room) {
                Ok(read) => assert!(read > 0, "it is open"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!((message, has_room), (Incoming::Message(vec![7; 60_000].into()), true));
    }
}
