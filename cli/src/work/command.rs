//! One run of the command for one task.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kaizen_proto::{
    header,
    id::TaskId,
    record::{OUTPUT_BYTES_MAX, TaskOrder},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::output::{Output, one_line};

/// Between the signal that asks a command to stop and the one that makes it.
const GRACE: Duration = Duration::from_secs(5);
/// How long what it has printed may take to arrive once it has ended.
const READ_WAIT: Duration = Duration::from_secs(2);
/// Longest part of a line that is handed on at once, in bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// A command at its task, with all that it has started. Dropped, it is killed.
pub(super) struct Running {
    child: Child,
    group: Group,
    tail: Arc<Mutex<Tail>>,
    readers: JoinSet<()>,
}

impl Running {
    /// Starts the command with the task on its stdin and in its environment.
    pub(super) fn start(
        command: &[OsString],
        task: TaskId,
        order: &TaskOrder,
        traceparent: Option<&str>,
        output: &Output,
    ) -> io::Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::other("no command"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment(task, order, traceparent))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts is stopped with it, and a Ctrl-C is for us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Group(leader.map(Pid::from_raw));
        let mut readers = JoinSet::new();
        if let Some(mut stdin) = child.stdin.take() {
            let line = stdin_line(task, order);
            readers.spawn(async move {
                // A command need not read it.
                _ = stdin.write_all(line.as_bytes()).await;
            });
        }
        let tail = Arc::new(Mutex::new(Tail::default()));
        let name: String = task.to_string().chars().take(8).collect();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(hand_on(stdout, tail.clone(), name.clone(), output.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(hand_on(stderr, tail.clone(), name, output.clone()));
        }
        Ok(Self {
            child,
            group,
            tail,
            readers,
        })
    }

    /// Waits until it has ended. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop, and kills it if it does not.
    pub(super) async fn stop(&mut self) {
        self.group.signal(Signal::SIGTERM);
        if timeout(GRACE, self.child.wait()).await.is_err() {
            self.group.signal(Signal::SIGKILL);
            _ = self.child.wait().await;
        }
    }

    /// What it has printed, once it has ended. What it has left running ends here.
    pub(super) async fn printed(mut self) -> String {
        self.group.signal(Signal::SIGKILL);
        let all = async { while self.readers.join_next().await.is_some() {} };
        _ = timeout(READ_WAIT, all).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.text()
    }
}

/// A process and what it has started.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            _ = killpg(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn environment(
    task: TaskId,
    order: &TaskOrder,
    traceparent: Option<&str>,
) -> Vec<(String, String)> {
    let mut environment = vec![
        ("KAIZEN_TASK".to_owned(), task.to_string()),
        ("KAIZEN_TASK_QUEUE".to_owned(), order.queue.to_string()),
        ("KAIZEN_TASK_TITLE".to_owned(), order.title.clone()),
        (
            "KAIZEN_TASK_DEFINITION".to_owned(),
            order.definition.to_string(),
        ),
        ("KAIZEN_TASK_ATTEMPT".to_owned(), order.attempt.to_string()),
        (
            "KAIZEN_TASK_PRIORITY".to_owned(),
            order.priority.to_string(),
        ),
    ];
    if let Some(due) = order.due {
        environment.push(("KAIZEN_TASK_DUE".to_owned(), due.to_string()));
    }
    for (name, value) in &order.labels {
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        environment.push((format!("KAIZEN_TASK_LABEL_{name}"), value.clone()));
    }
    if let Some(traceparent) = traceparent {
        let name = header::TRACEPARENT.to_ascii_uppercase();
        environment.push((name, traceparent.to_owned()));
    }
    for (_, value) in &mut environment {
        // No environment holds it.
        *value = value.replace('\0', " ");
    }
    environment
}

/// The order in one line, with the task's id.
fn stdin_line(task: TaskId, order: &TaskOrder) -> String {
    let mut line = json!(order);
    if let Value::Object(fields) = &mut line {
        fields.insert("task".to_owned(), json!(task.to_string()));
    }
    format!("{line}\n")
}

/// Hands on what a command prints, line by line, and keeps the end of it.
async fn hand_on(
    from: impl AsyncRead + Unpin,
    tail: Arc<Mutex<Tail>>,
    name: String,
    output: Output,
) {
    let mut from = BufReader::with_capacity(LINE_BYTES_MAX, from);
    loop {
        let (line, taken) = match from.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(buffered) => {
                let end = buffered.iter().position(|byte| *byte == b'\n');
                let taken = end.map_or(buffered.len(), |end| end + 1);
                (buffered.get(..taken).unwrap_or_default().to_vec(), taken)
            }
        };
        from.consume(taken);
        tail.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&line);
        let text = String::from_utf8_lossy(&line);
        output.say(format_args!("{name} | {}", one_line(text.trim_end())));
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let over = self.0.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.0.drain(..over);
    }

    /// As text, still no longer: what is no UTF-8 takes more room when it is replaced.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let over = text.len().saturating_sub(OUTPUT_BYTES_MAX);
        let start = (over..=text.len()).find(|start| text.is_char_boundary(*start));
        let end = text.get(start.unwrap_or(0)..).unwrap_or_default();
        end.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_printed_is_kept_within_its_bound() {
        let mut tail = Tail::default();
        tail.push(b"first\n");
        assert_eq!(tail.text(), "first");
        tail.push(&[0xff; 3 * OUTPUT_BYTES_MAX]);
        tail.push(b"last\n");
        let text = tail.text();
        assert!(text.len() <= OUTPUT_BYTES_MAX && text.ends_with("\u{fffd}last"));
    }
}
