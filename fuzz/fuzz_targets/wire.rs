//! Bytes on the link between the planes, in both directions.

#![no_main]

use std::fmt::Debug;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tqserver::wire::{Duplex, ToManager, ToProxy};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime needs little");
}

/// As much fits into a socket that nobody reads from.
const MAX: usize = 64 << 10;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(MAX)];
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            listen::<ToProxy>(data).await;
            listen::<ToManager>(data).await;
        });
    });
});

/// Hears `data`, says what it was again, and hears the same.
async fn listen<M: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    let (near, mut far) = net::UnixStream::pair().expect("two sockets");
    far.write_all(data).expect("they take this much");
    far.shutdown(Shutdown::Write).expect("it is open");
    near.set_nonblocking(true).expect("a socket can be");
    let mut reader = Duplex::<M, M>::new(UnixStream::from_std(near).expect("in a runtime"));
    let (one, other) = UnixStream::pair().expect("two sockets");
    let (mut writer, mut second) = (Duplex::<M, M>::new(one), Duplex::<M, M>::new(other));
    let mut count = 0;
    while let Ok(Some(message)) = reader.next().await {
        count += 1;
        assert!(
            count * 5 <= data.len(),
            "more messages than there are bytes for"
        );
        writer.send(&message).await.expect("it is read at once");
        assert_eq!(
            second.next().await.expect("what was said is heard"),
            Some(message)
        );
    }
}
