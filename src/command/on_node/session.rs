//! A pod under way: what it prints, what it reads, how it ends.
//!
//! Three calls of `kubectl` go on beside each other: `get --watch` says in which state the pod is, `logs --follow` what it
//! prints, `attach` takes what it reads. Each of them may break while the pod goes on; what counts as its end is what
//! Kubernetes says of the container, and as its words what the log holds.

use super::background::Background;
use super::input::Carried;
use super::kubectl::Kubectl;
use super::pod_state::{End, PodState, Reasons, says_nothing};
use super::run::{PodRun, Printed};
use super::tool::lines;
use crate::command::{Event, Ui};
use crate::pod::{CONTAINER, DeskEvent};
use crate::{Code, Error, Kind, Result};
use serde_json::Value;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often Ctrl-C and the time are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long after a broken call it is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often Kubernetes is asked what it warned about, while the pod waits.
const WARNINGS: Duration = Duration::from_secs(5);
/// How often the state is asked for, beside the watch.
const LOOK: Duration = Duration::from_secs(30);
/// How long the rest of the log is waited for, once the program has ended.
const LOG: Duration = Duration::from_secs(60);
/// How long, where the pod is gone already.
const LOG_OF_GONE: Duration = Duration::from_secs(2);
/// How long a program whose input broke is given to notice it.
const NOTICE: Duration = Duration::from_secs(10);
/// How long a pod that is to stop is waited for: its grace period, and what the cluster takes on top.
const STOP: Duration = Duration::from_secs(180);
/// How long one is waited for that has not begun: with its deletion on record no kubelet starts it any more.
const STOP_BEFORE_BEGIN: Duration = Duration::from_secs(15);
/// How long a cluster that does not answer is asked again.
const SILENT: Duration = Duration::from_secs(600);

/// What a kubelet writes at the end of a log, without a line end, when the container is deleted while it is read.
const LOST_CONTAINER: &str = "rpc error: code = NotFound desc = ";

/// What the calls that go on report.
enum Message {
    State(PodState),
    /// The pod is not there any more.
    Gone,
    /// The cluster does not answer.
    Silent(String),
    Line(String),
    /// The log is complete; or why it cannot be had.
    LogEnded(Option<String>),
    /// Everything was handed over.
    Delivered,
    /// The call that carries the input has ended, with what it said.
    InputEnded(String),
}

/// A pod, and the calls about it.
pub(super) struct Session<'a> {
    run: &'a PodRun,
    kubectl: &'a Kubectl,
    pod: &'a str,
    ui: &'a dyn Ui,
    calm: &'a dyn Ui,
    /// Calls that have to end with the session.
    background: Background,
    /// Whether the pod's program is known to have ended: its log is complete then.
    over: AtomicBool,
}

/// What is known while it goes on.
struct Progress {
    state: PodState,
    begun: Instant,
    reasons: Reasons,
    /// What Kubernetes warned about while the pod itself says nothing.
    warning: Option<String>,
    asked_for_warnings: Instant,
    looked: Instant,
    delivered: bool,
    input_ended: Option<(Instant, String)>,
    stopping: Option<Instant>,
    ended: Option<(Instant, End)>,
    silent: Option<Instant>,
    gone: Option<Instant>,
    /// Why the program was stopped, where that was not the user.
    broke: Option<String>,
    log_complete: bool,
}

impl<'a> Session<'a> {
    /// `calm`: as `ui`, and never stopped.
    pub(super) fn new(run: &'a PodRun, kubectl: &'a Kubectl, pod: &'a str, ui: &'a dyn Ui, calm: &'a dyn Ui) -> Self {
        Self { run, kubectl, pod, ui, calm, background: Background::default(), over: AtomicBool::new(false) }
    }

    /// Goes on until the pod's program has ended.
    ///
    /// # Errors
    /// As [`PodRun::run`].
    pub(super) fn run(
        &self,
        stdin: bool,
        carried: Option<&Carried>,
        print: &mut dyn FnMut(Printed<'_>),
    ) -> Result<End> {
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            let (answer, answers) = channel();
            let (to_watch, to_log) = (tell.clone(), tell.clone());
            scope.spawn(move || self.watch(&to_watch));
            let mut answers = Some(answers);
            let mut to_log = Some(to_log);
            let begin = &mut || {
                if let Some(to_log) = to_log.take() {
                    scope.spawn(move || self.log(&to_log));
                    if let Some(answers) = answers.take().filter(|_| stdin) {
                        let tell = tell.clone();
                        scope.spawn(move || self.feed(carried, &answers, &tell));
                    }
                }
            };
            let end = self.follow(&told, begin, &answer, print);
            self.background.stop();
            drop(answer);
            end
        })
    }

    /// Goes on until the program has ended and its log is complete.
    fn follow(
        &self,
        told: &Receiver<Message>,
        begin: &mut dyn FnMut(),
        answer: &Sender<bool>,
        print: &mut dyn FnMut(Printed<'_>),
    ) -> Result<End> {
        let now = Instant::now();
        let mut p = Progress {
            state: PodState::Waiting { reason: None, message: None },
            begun: now,
            reasons: Reasons::default(),
            warning: None,
            asked_for_warnings: now,
            looked: now,
            delivered: false,
            input_ended: None,
            stopping: None,
            ended: None,
            silent: None,
            gone: None,
            broke: None,
            log_complete: false,
        };
        loop {
            match told.recv_timeout(TICK) {
                Ok(Message::State(state)) => self.is_in(state, begin, &mut p),
                Ok(Message::Gone) if p.ended.is_none() => return Err(self.gone(&p)),
                Ok(Message::Gone) => {
                    p.gone.get_or_insert_with(Instant::now);
                }
                Ok(Message::Silent(why)) => {
                    if p.silent.is_none() {
                        self.ui.event(Event::Warning(format!("the cluster does not answer ({why}): asking again")));
                        p.silent = Some(Instant::now());
                    }
                }
                Ok(Message::Line(line)) => self.line(&line, answer, print, &mut p)?,
                Ok(Message::LogEnded(problem)) => {
                    if let Some(problem) = problem {
                        self.ui.event(Event::Warning(format!("the pod's log cannot be read to its end: {problem}")));
                    }
                    p.log_complete = true;
                }
                Ok(Message::Delivered) => p.delivered = true,
                Ok(Message::InputEnded(why)) => p.input_ended = Some((Instant::now(), why)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Code::Bug, "nobody watches the pod")),
            }
            if let Some((since, end)) = &p.ended {
                let gone = p.gone.is_some_and(|gone| gone.elapsed() > LOG_OF_GONE);
                if !p.log_complete && !gone && since.elapsed() <= LOG {
                    continue;
                }
                if !p.log_complete && !gone {
                    let line = self.kubectl.log_line(self.pod);
                    self.ui.event(Event::Warning(format!("the pod's log does not end: `{line}` may show more")));
                }
                return match p.broke {
                    None => Ok(end.clone()),
                    Some(why) => Err(Error::new(Code::Cluster, format!("{why}; pod {} was stopped", self.pod))
                        .advise("its own words stand above; run it again")),
                };
            }
            if p.looked.elapsed() > LOOK {
                p.looked = Instant::now();
                // A watch can be dead without anybody knowing.
                match self.kubectl.pod(self.pod, self.calm) {
                    Ok(None) => return Err(self.gone(&p)),
                    Ok(Some(pod)) => self.is_in(PodState::read(&pod), begin, &mut p),
                    Err(_) => {}
                }
            }
            self.look(&mut p)?;
        }
    }

    /// The pod is in this state.
    fn is_in(&self, state: PodState, begin: &mut dyn FnMut(), p: &mut Progress) {
        p.silent = None;
        if state.has_begun() {
            begin();
        }
        if let PodState::Ended(end) = &state {
            self.over.store(true, Ordering::Relaxed);
            p.ended.get_or_insert((Instant::now(), end.clone()));
        }
        p.state = state;
    }

    /// What time and the user have to say while the program has not ended.
    fn look(&self, p: &mut Progress) -> Result<()> {
        if let PodState::Failed { .. } = p.state {
            let why = p.state.why().unwrap_or_else(|| "no reason is given".into());
            let what = format!("pod {} on {} was ended from outside: {why}", self.pod, self.run.node);
            return Err(Error::new(Code::Cluster, what).advise(self.run.recover_advice()));
        }
        if self.ui.cancelled().load(Ordering::Relaxed) && p.stopping.is_none() {
            if !p.state.has_begun() {
                // It may begin at this very moment: what it does then ends with its SIGTERM.
                self.stop(p, "stopping the pod, which has not begun")?;
            } else {
                self.stop(p, "stopping what runs on the node; waiting for its end")?;
            }
        }
        match p.stopping {
            Some(since) if !p.state.has_begun() && since.elapsed() > STOP_BEFORE_BEGIN => return Err(self.gone(p)),
            Some(since) if since.elapsed() > STOP => {
                let line = self.kubectl.delete_line(self.pod);
                let what = format!("pod {} does not end; what it does on {} is not known", self.pod, self.run.node);
                return Err(
                    Error::new(Code::Cluster, what).advise(format!("delete it with `{line}`, then look at the disk"))
                );
            }
            Some(_) => return Ok(()),
            None => {}
        }
        if let Some(since) = p.silent.filter(|since| since.elapsed() > SILENT) {
            let what = format!(
                "the cluster has not answered for {} s; what pod {} does on {} is not known",
                since.elapsed().as_secs(),
                self.pod,
                self.run.node
            );
            return Err(Error::new(Code::Cluster, what).advise(self.run.recover_advice()));
        }
        let broke = p.input_ended.clone().filter(|(since, _)| !p.delivered && since.elapsed() > NOTICE);
        if let Some((_, why)) = broke {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            self.stop_broken(p, format!("the connection to the pod's input broke{why}"))?;
        }
        if !p.state.has_begun() {
            self.wait_for_begin(p)?;
        }
        Ok(())
    }

    fn stop_broken(&self, p: &mut Progress, why: String) -> Result<()> {
        let stopping = self.stop(p, &format!("{why}: stopping it"));
        p.broke = Some(why);
        stopping
    }

    fn stop(&self, p: &mut Progress, why: &str) -> Result<()> {
        self.ui.event(Event::Warning(why.to_owned()));
        p.stopping = Some(Instant::now());
        self.kubectl.delete_pod(self.pod, self.calm)
    }

    /// Says why the pod does not begin, and gives up where waiting does not help.
    fn wait_for_begin(&self, p: &mut Progress) -> Result<()> {
        let waits = p.begun.elapsed();
        let mut why = p.state.why();
        if says_nothing(why.as_deref()) {
            if waits > WARNINGS && p.asked_for_warnings.elapsed() > WARNINGS {
                p.asked_for_warnings = Instant::now();
                p.warning = self.kubectl.latest_warning(self.pod, self.ui).or(p.warning.take());
            }
            why = p.warning.clone().or(why);
        }
        if let Some(why) = why.as_deref().filter(|why| p.reasons.is_new(why)) {
            self.ui.event(Event::Note(format!("pod {} waits: {why}", self.pod)));
        }
        let cannot_mount = why.as_deref().is_some_and(|why| why.contains("hostPath type check failed"));
        if !p.state.is_hopeless() && !cannot_mount && waits < self.run.wait {
            return Ok(());
        }
        let why =
            p.reasons.cause(why).unwrap_or_else(|| "Kubernetes gives no reason; does a kubelet run there?".into());
        let what = format!("pod {} has not begun on {} after {} s: {why}", self.pod, self.run.node, waits.as_secs());
        let error = Error::new(Code::Cluster, what).with_esp_changed(false);
        Err(match why {
            why if why.contains("efivars") => {
                error.advise("the node has no EFI variables there: repeat it with --efivars none behind --")
            }
            why if why.contains("Image") => error.advise(
                "name an image that the node can pull with --image-ref REF, or carry this program there: --push-self",
            ),
            _ => error.advise(format!(
                "look at the node; for more time: --wait SECONDS (it was {})",
                self.run.wait.as_secs()
            )),
        })
    }

    fn gone(&self, p: &Progress) -> Error {
        if p.stopping.is_some() && !p.state.has_begun() {
            return Error::new(Kind::Cancelled, "stopped before anything began on the node").with_esp_changed(false);
        }
        let what = format!("pod {} was deleted, and how its program ended is not known", self.pod);
        Error::new(Code::Cluster, what).advise(self.run.recover_advice())
    }

    /// A line of the log: a piece of what goes to stderr, or of the report.
    fn line(
        &self,
        line: &str,
        answer: &Sender<bool>,
        print: &mut dyn FnMut(Printed<'_>),
        p: &mut Progress,
    ) -> Result<()> {
        match DeskEvent::read(line) {
            None => print(Printed::Report(line)),
            Some(DeskEvent::Text { text }) => print(Printed::Said(&text)),
            Some(DeskEvent::Phase { text }) => self.ui.event(Event::Phase(text)),
            Some(DeskEvent::Progress { done, total }) => self.ui.event(Event::Progress { done, total }),
            Some(DeskEvent::Question { .. }) if p.stopping.is_some() || p.ended.is_some() => {}
            Some(DeskEvent::Question { .. }) if p.input_ended.is_some() => {
                self.stop_broken(p, "the connection to the pod's input broke, and it asks".into())?;
            }
            Some(DeskEvent::Question { text }) => {
                let yes = self.ui.confirm(&text).unwrap_or(false);
                // Where nobody takes it any more, the pod's end says why.
                let _ = answer.send(yes);
            }
        }
        Ok(())
    }

    /// Reports every state of the pod until it is gone.
    fn watch(&self, tell: &Sender<Message>) {
        while !self.background.is_stopped() {
            let told = self.background.run(self.kubectl.watch_pod(self.pod, self.ui), |child| {
                let Some(stdout) = child.stdout.take() else { return };
                let documents = serde_json::Deserializer::from_reader(std::io::BufReader::new(stdout)).into_iter();
                for event in documents.map_while(|event: serde_json::Result<Value>| event.ok()) {
                    // An error of the watch says nothing about the pod.
                    let known = matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED"));
                    if !known || tell.send(Message::State(PodState::read(&event["object"]))).is_err() {
                        return;
                    }
                    if event["type"] == "DELETED" {
                        return;
                    }
                }
            });
            if self.background.is_stopped() {
                return;
            }
            let message = match self.kubectl.pod(self.pod, self.calm) {
                Ok(Some(pod)) => Message::State(PodState::read(&pod)),
                Ok(None) => Message::Gone,
                Err(e) => Message::Silent(told.err().unwrap_or_else(|| e.message().to_owned())),
            };
            let gone = matches!(message, Message::Gone);
            if tell.send(message).is_err() || gone {
                return;
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Reports every line of the log once, however often it breaks.
    fn log(&self, tell: &Sender<Message>) {
        const TRIES: u32 = 10;
        let (mut seen, mut failed) = (0, 0);
        while !self.background.is_stopped() {
            // What was written before the end is there when the program is known to have ended.
            let complete = self.over.load(Ordering::Relaxed);
            // A line that is cut is read again, unless that is all of it.
            let mut half = None;
            let said = self.background.run(self.kubectl.follow_log(self.pod, CONTAINER, self.ui), |child| {
                let mut at = 0;
                lines(child.stdout.take(), |line, is_whole| {
                    at += 1;
                    if at <= seen {
                        return true;
                    }
                    if !is_whole {
                        half = Some(line);
                        return true;
                    }
                    seen = at;
                    tell.send(Message::Line(line)).is_ok()
                });
            });
            match said {
                Ok(()) if complete => {
                    let rest = half.filter(|line: &String| !line.starts_with(LOST_CONTAINER));
                    rest.into_iter().for_each(|line| drop(tell.send(Message::Line(line))));
                    let _ = tell.send(Message::LogEnded(None));
                    return;
                }
                Ok(()) => self.wait_for_end(),
                Err(why) => {
                    failed += u32::from(complete);
                    if failed == TRIES {
                        let _ = tell.send(Message::LogEnded(Some(why)));
                        return;
                    }
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// The log ends a moment before the state says so.
    fn wait_for_end(&self) {
        const MOMENT: Duration = Duration::from_secs(3);
        let end = Instant::now() + MOMENT;
        while !self.over.load(Ordering::Relaxed) && !self.background.is_stopped() && Instant::now() < end {
            std::thread::sleep(TICK);
        }
    }

    /// Hands over what the program reads: itself, the image, answers.
    fn feed(&self, carried: Option<&Carried>, answers: &Receiver<bool>, tell: &Sender<Message>) {
        let mut command = self.kubectl.attach(self.pod, CONTAINER, self.ui);
        // What the program prints comes by its log.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let ended = self.background.run(command, |child| {
            let Some(mut stdin) = child.stdin.take() else { return };
            let sent = carried.map_or(Ok(()), |carried| carried.send(&mut stdin).map_err(Error::from)).and_then(|()| {
                self.run.image.as_ref().map_or(Ok(()), |image| image.send(&mut stdin, || self.background.is_stopped()))
            });
            if sent.is_err() {
                return;
            }
            let _ = tell.send(Message::Delivered);
            while self.run.asks && matches!(child.try_wait(), Ok(None)) {
                let yes = match answers.recv_timeout(TICK) {
                    Ok(yes) => yes,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if stdin.write_all(if yes { b"y\n" } else { b"n\n" }).is_err() {
                    return;
                }
            }
        });
        let _ = tell.send(Message::InputEnded(ended.err().unwrap_or_default()));
    }
}
