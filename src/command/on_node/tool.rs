//! A program of the user's own: `kubectl`, `talosctl`. It is found as a shell would find it, and every call can be shown.

use crate::command::{Event, Ui};
use crate::harmless::shell_line;
use crate::{Code, Context, Error, Kind, Result};
use std::ffi::OsStr;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How often a running call is looked at.
const TICK: Duration = Duration::from_millis(20);
/// A call that is still running this long after it said something is waiting for the user: a login, say.
const SAID_AND_WAITS: Duration = Duration::from_secs(1);
/// No answer of these programs that is wanted whole is longer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// A program on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    name: &'static str,
    program: PathBuf,
    /// Options of every call: the context, say.
    common: Vec<String>,
    /// How long a call may take whose answer is waited for.
    limit: Option<Duration>,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whether it says that it went well.
    pub(crate) good: bool,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// What it complained about.
    pub(crate) stderr: String,
}

impl Tool {
    /// The program that this variable names, or the one of this name on PATH.
    ///
    /// # Errors
    /// [`Code::NoTool`] when there is none.
    pub(crate) fn find(name: &'static str, variable: &str) -> Result<Self> {
        let named = std::env::var_os(variable).filter(|value| !value.is_empty());
        let program = match &named {
            Some(value) if Path::new(value).components().count() > 1 => Some(PathBuf::from(value)),
            other => on_path(other.as_deref().unwrap_or(OsStr::new(name))),
        };
        match program.filter(|path| is_program(path)) {
            Some(program) => Ok(Self { name, program, common: Vec::new(), limit: None }),
            None => {
                let what = match named {
                    Some(value) => format!("{variable} names {}, and there is no such program", value.display()),
                    None => format!("{name} is not on PATH"),
                };
                Err(Error::new(Code::NoTool, what).advise(format!(
                    "install {name}, or name it: {variable}=/path/to/{name}; it is what reaches the cluster"
                )))
            }
        }
    }

    /// The same program, with these options in front of every call.
    pub(crate) fn with_options(mut self, options: impl IntoIterator<Item = String>) -> Self {
        self.common.extend(options);
        self
    }

    /// The same program, whose calls are given up after so long.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// A call as somebody would type it.
    pub(crate) fn line(&self, args: &[&str]) -> String {
        let words = self.common.iter().map(String::as_str).chain(args.iter().copied());
        shell_line(std::iter::once(self.name).chain(words))
    }

    /// A call that goes on beside this program: Ctrl-C at the terminal does not end it, this program does.
    pub(crate) fn in_background(&self, args: &[&str], ui: &dyn Ui) -> Command {
        ui.event(Event::Detail(self.line(args)));
        let mut command = self.command(args);
        command.process_group(0);
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.common).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Makes a call and waits for its end. What it says on stderr while it waits (for a login, say) is shown.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] when the user stops it; [`Code::Cluster`] when it takes too long; [`Kind::Io`] when it cannot
    /// be started. That it fails is an answer.
    pub(crate) fn ask(&self, args: &[&str], input: Option<&[u8]>, ui: &dyn Ui) -> Result<Answer> {
        ui.event(Event::Detail(self.line(args)));
        self.call(args, input, ui).while_doing(|| format!("running `{}`", self.line(args)))
    }

    fn call(&self, args: &[&str], input: Option<&[u8]>, ui: &dyn Ui) -> Result<Answer> {
        let mut command = self.command(args);
        // A login plugin may ask. What is given its input cannot, and creates something: Ctrl-C is not for it.
        if input.is_some() {
            command.stdin(Stdio::piped()).process_group(0);
        } else if std::io::stdin().is_terminal() {
            command.stdin(Stdio::inherit());
        }
        let mut child = Running(command.spawn()?);
        let stdout = child.0.stdout.take();
        let (stdin, stderr) = (child.0.stdin.take(), child.0.stderr.take());
        std::thread::scope(|scope| {
            let answer = scope.spawn(move || {
                let mut bytes = Vec::new();
                stdout.map_or(Ok(0), |out| out.take(MAX_ANSWER).read_to_end(&mut bytes)).map(|_| bytes)
            });
            let (tell, told) = channel();
            scope.spawn(move || lines(stderr, |line, _| tell.send(line).is_ok()));
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // Whoever does not read it all says why on stderr.
                scope.spawn(move || drop(stdin.write_all(input)));
            }
            let (good, stderr) = self.wait(&mut child.0, &told, ui)?;
            let stdout = answer.join().unwrap_or_else(|_| Ok(Vec::new()))?;
            Ok(Answer { good, stdout, stderr })
        })
    }

    fn wait(&self, child: &mut Child, told: &Receiver<String>, ui: &dyn Ui) -> Result<(bool, String)> {
        let mut said: Vec<String> = Vec::new();
        let (mut shown, mut since, begun) = (0, Instant::now(), Instant::now());
        let status = loop {
            let before = said.len();
            said.extend(told.try_iter());
            if said.len() > before {
                since = Instant::now();
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if ui.cancelled().load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::new(Kind::Cancelled, "stopped on request"));
            }
            if let Some(limit) = self.limit.filter(|limit| begun.elapsed() > *limit) {
                let _ = child.kill();
                let _ = child.wait();
                let what = format!("it gave no answer in {} seconds", limit.as_secs());
                return Err(Error::new(Code::Cluster, what));
            }
            if shown < said.len() && since.elapsed() > SAID_AND_WAITS {
                said[shown..].iter().for_each(|line| ui.event(Event::Note(format!("{}: {line}", self.name))));
                shown = said.len();
            }
            std::thread::sleep(TICK);
        };
        said.extend(told.iter());
        Ok((status.success(), said.join("\n")))
    }

    /// The error of a call that failed.
    pub(crate) fn failed(&self, args: &[&str], stderr: &str) -> Error {
        let stderr = stderr.trim();
        let why = if stderr.is_empty() { "it failed and did not say why" } else { stderr };
        Error::new(Code::Cluster, format!("`{}`: {}", self.line(args), first_lines(why)))
    }
}

impl Answer {
    /// The answer of a call that has to go well.
    pub(crate) fn good_or(self, error: impl FnOnce(&str) -> Error) -> Result<Vec<u8>> {
        if self.good { Ok(self.stdout) } else { Err(error(&self.stderr)) }
    }
}

/// A process that does not outlive its value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the lines of a stream, and whether their end has come, to somebody who says whether to go on. Lines are cut at
/// 64 KiB.
pub(crate) fn lines(stream: Option<impl Read>, mut tell: impl FnMut(String, bool) -> bool) {
    const LONGEST: u64 = 64 << 10;
    let Some(stream) = stream else { return };
    let mut stream = std::io::BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match std::io::BufRead::read_until(&mut (&mut stream).take(LONGEST), b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_whole = line.last() == Some(&b'\n') || line.len() as u64 == LONGEST;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !tell(String::from_utf8_lossy(&line).into_owned(), is_whole) {
            return;
        }
    }
}

/// What a program says at length, cut: the first lines tell what is wrong.
fn first_lines(text: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    lines.join("; ")
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
