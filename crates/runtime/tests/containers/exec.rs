//! Processes in running containers, and clients attached to them.

use crate::support::{Node, PATIENCE, sh};
use runtime::{ExecRequest, RuntimeError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_to_the_end() {
    let node = Node::new();
    let sandbox = node.sandbox("exec").await;
    let container = node
        .start(&sandbox, |config| {
            config.env = vec![("FOO".into(), "bar".into())];
            config.security.run_as_user = Some(1000);
        })
        .await;
    let output =
        node.exec(&container, "id -u; pwd; echo $FOO >&2; ps | grep -c '[s]leep 1000'; exit 4").await;
    // Of all the processes that other tests start, only its own are to be seen.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000\n/\n1\n");
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.exit_code), ("bar\n", 4));
    let error = node.runtime.exec_sync(&container.id, vec!["nope".into()], None, 10).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Exec { .. }));
    assert!(error.to_string().ends_with(r#"exec: "nope": executable file not found in $PATH"#), "{error}");
    let error =
        node.runtime.exec_sync(&container.id, sh("sleep 1234"), Some(Duration::from_millis(200)), 10).await;
    assert!(matches!(error, Err(RuntimeError::ExecTimeout { .. })));
    assert_eq!(
        String::from_utf8_lossy(&node.exec(&container, "ps | grep -c '[s]leep 1234'").await.stdout),
        "0\n"
    );
    let limited =
        node.runtime.exec_sync(&container.id, sh("yes | head -c 100000"), Some(PATIENCE), 10).await.unwrap();
    assert_eq!(limited.stdout, b"y\ny\ny\ny\ny\n");
    // What a command leaves behind does not keep it.
    let output = node.exec(&container, "sleep 500 & echo started").await;
    assert_eq!(output.stdout, b"started\n");
    let long = format!("echo {} | wc -c", "x".repeat(100_000));
    assert_eq!(node.exec(&container, &long).await.stdout, b"100001\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_with_streams() {
    let node = Node::new();
    let sandbox = node.sandbox("streams").await;
    let container = node.start(&sandbox, |_| {}).await;
    let request = ExecRequest {
        command: sh("cat; echo done >&2"),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let mut exec = node.runtime.exec_stream(&container.id, request).await.unwrap();
    let data: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let mut stdin = exec.streams.stdin.take().unwrap();
    let to_write = data.clone();
    let writer = tokio::spawn(async move { stdin.write_all(&to_write).await.unwrap() });
    let mut out = Vec::new();
    exec.streams.stdout.take().unwrap().read_to_end(&mut out).await.unwrap();
    writer.await.unwrap();
    assert!(out == data);
    let mut err = String::new();
    exec.streams.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((err.as_str(), exec.wait().await.unwrap()), ("done\n", 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_with_a_terminal() {
    let node = Node::new();
    let sandbox = node.sandbox("terminal").await;
    let container = node.start(&sandbox, |config| config.security.run_as_user = Some(1000)).await;
    let script = "tty; read line; stty size; echo $TERM; echo hello > $(tty); exit 5";
    let request =
        ExecRequest { command: sh(script), tty: true, stdin: true, stdout: true, ..Default::default() };
    let mut exec = node.runtime.exec_stream(&container.id, request).await.unwrap();
    exec.streams.resizer.clone().unwrap().resize(120, 40).await.unwrap();
    exec.streams.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut out = String::new();
    let read = exec.streams.stdout.as_mut().unwrap().read_to_string(&mut out);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(out.replace("\r\n", "\n").replace("go\n", ""), "/dev/pts/0\n40 120\nxterm\nhello\n");
    assert_eq!(exec.wait().await.unwrap(), 5);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_to_pipes() {
    let node = Node::new();
    let sandbox = node.sandbox("attach").await;
    let container = node
        .start(&sandbox, |config| {
            config.command = sh("while read line; do echo got $line; done; echo end");
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    let mut attached = node.runtime.attach_stream(&container.id, true, true, true).await.unwrap();
    let mut stdin = attached.streams.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    attached.streams.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "got one\ngot two\nend\n");
    assert_eq!(node.exit(&container.id).await.exit_code, 0);
    let log = std::fs::read_to_string(&container.log_path).unwrap();
    assert!(log.contains("stdout F got two\n"), "{log}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_to_a_terminal() {
    let node = Node::new();
    let sandbox = node.sandbox("attach-tty").await;
    let container = node
        .start(&sandbox, |config| {
            config.command = sh("read line; stty size; tty; echo got $line; test -c /dev/console");
            (config.tty, config.stdin) = (true, true);
        })
        .await;
    let mut attached = node.runtime.attach_stream(&container.id, true, true, true).await.unwrap();
    assert!(attached.streams.stderr.is_none());
    attached.streams.resizer.as_ref().unwrap().resize(100, 30).await.unwrap();
    attached.streams.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let mut out = String::new();
    attached.streams.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out.replace("\r\n", "\n"), "hello\n30 100\n/dev/pts/0\ngot hello\n");
    assert_eq!(node.exit(&container.id).await.exit_code, 0);
    node.finish().await;
}

/// A client that does not read must not lose anything, nor stop what it does not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_loses_nothing() {
    let node = Node::new();
    let sandbox = node.sandbox("slow").await;
    let container = node
        .start(&sandbox, |config| {
            config.command = sh("read line; seq 1 100000");
            config.stdin = true;
        })
        .await;
    let mut attached = node.runtime.attach_stream(&container.id, true, true, false).await.unwrap();
    attached.streams.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    // The monitor answers others while this one does not read.
    assert_eq!(node.exec(&container, "echo here").await.stdout, b"here\n");
    let mut out = String::new();
    attached.streams.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert!(out.ends_with("99999\n100000\n"));
    assert_eq!(out.lines().count(), 100_000);
    node.exit(&container.id).await;
    let log = std::fs::read_to_string(&container.log_path).unwrap();
    assert_eq!(log.lines().count(), 100_000);
    node.finish().await;
}
