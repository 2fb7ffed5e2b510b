//! What arrives in packets and frames.

use bytes::BytesMut;
use network::dns::wire::{Code, Parts, Query, read_answers};
use network::dns::{Zone, answer};
use node::websocket::{REMOTE_COMMAND, converse};
use object::Snapshot;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

pub fn dns(bytes: &[u8]) {
    let id = bytes.first_chunk().map_or(0, |first: &[u8; 2]| u16::from_be_bytes(*first));
    let _ = read_answers(bytes, id);
    let Ok(query) = Query::read(bytes) else { return };
    let zone = Zone { domain: "cluster.local".into(), server: [10, 100, 0, 10].into(), serial: 1 };
    let _ = answer(&network::Index::of(&Snapshot::default()), &zone, &query.question);
    let parts = Parts { authoritative: true, answers: &[], authority: &[], additional: &[] };
    let told = query.answer(Code::Ok, &parts, usize::from(query.udp_size));
    assert!(told.len() <= usize::from(query.udp_size), "an answer fits where it goes");
    let _ = query.onwards(1, &query.question.name);
}

pub fn spdy(bytes: &[u8]) {
    let mut decoder = spdy::Decoder::default();
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = decoder.next(&mut buffer) {
        if let Ok(mut encoder) = spdy::Encoder::new() {
            let _ = encoder.encode(&frame, &mut BytesMut::new());
        }
    }
}

/// A client of exec that says these bytes once it may.
pub fn websocket(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let protocol = REMOTE_COMMAND[usize::from(first) % REMOTE_COMMAND.len()];
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(bytes.len().max(1));
        let said = async {
            let _ = client.write_all(bytes).await;
            drop(client);
        };
        let heard = async {
            let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
            converse(socket, protocol, |_, mut heard| async move { while heard.recv().await.is_some() {} })
                .await
        };
        tokio::join!(said, heard)
    });
}
