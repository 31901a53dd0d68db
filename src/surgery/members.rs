//! `recover` on all members of a mirror that nobody has assembled: one of them is the truth, and the others are made
//! equal to it.
//!
//! An operation on a mirror takes each step on one member after the other ([`crate::block::Mirror`]). A power cut
//! leaves each member in a state that a cut of the same operation on a single disk leaves, and no two of them more than
//! a step apart. Each could be recovered alone, and yet they would not be equal: one may be cut before the commit and
//! another one behind it. So:
//!
//! 1. **The truth** is the member that the user names; else the one that a mark names; else one on which an operation
//!    was cut behind its commit; else one on which none was interrupted; else the first. Where several are alike, it is
//!    the first of them. One that cannot be recovered is never the truth.
//! 2. The truth is recovered as any disk is. A **mark** takes the place of its record in one write, or appears: a
//!    record that names the member and says that nothing else is left to do.
//! 3. The others are made equal to it, byte for byte: what goes into clusters that are free there first, then the
//!    chains of it, then directories and what else is in use, then the rest of the tables, with a barrier behind each.
//! 4. They are compared. Then the mark goes, on all of them as any step does.
//!
//! From the moment at which another member is written until all are equal, the truth is marked, whole, and not written.
//! A member's own number is in the mark, so a copy of it on another member names the truth, too, and not that member.
//!
//! What makes two members differ has to be known before one of them is written over: where their files differ, once
//! each is recovered, in more than the interrupted operation was to change, it is left to the user which one is right.

use super::Action;
use super::copies::every_file;
use super::intent::{self, INTENT_NAME, interrupted};
use super::lost;
use super::order::Operation;
use super::recover::{recover_and_mark, recover_with};
use super::recovery::{Recovery, RecoveryOptions};
use super::shadow::Shadow;
use crate::block::{Extent, Mirror, ReadAt, WriteAt, copy_differences, first_difference, read_vec};
use crate::fat::{Editor, Geometry, Health, Link, Run, Volume};
use crate::sorting::set;
use crate::{Code, Error, Result};
use serde::Serialize;

/// A member of a mirror.
#[derive(Debug, Clone)]
pub struct Member<M> {
    /// How the user knows it.
    pub name: String,
    /// What tells it from the other members whatever it is called: its number in the array.
    pub id: String,
    /// The volume on it and nothing else.
    pub medium: M,
}

/// What was found and done on the members of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembersRecovery {
    /// The member that the others were made equal to.
    pub truth: String,
    /// What was found on it, and everything that was done.
    #[serde(flatten)]
    pub recovery: Recovery,
}

/// What [`recover_members`] would do; nothing is written. `truth` is the place in the list of the one that the user
/// names.
///
/// # Errors
/// As [`recover_members`].
pub fn rehearse_members(
    members: &[Member<&dyn ReadAt>],
    sector_size: u32,
    options: &RecoveryOptions,
    truth: Option<usize>,
) -> Result<MembersRecovery> {
    let decision = decide(members, sector_size, options, truth)?;
    let recovery = decision.recovery.clone();
    Ok(if decision.is_clean { decision.report(members, recovery) } else { decision.report_of_all(members, recovery) })
}

/// Brings all members of a mirror to one clean state, and makes them equal.
///
/// # Errors
/// [`Code::MembersDiffer`] where no interrupted operation explains the difference, and `truth` is not given; as
/// [`super::recover_with`].
pub fn recover_members(
    members: &[Member<&dyn WriteAt>],
    options: &RecoveryOptions,
    truth: Option<usize>,
) -> Result<MembersRecovery> {
    let sector_size = members.iter().map(|m| m.medium.sector_size()).max().unwrap_or(512);
    let sources: Vec<Member<&dyn ReadAt>> = members
        .iter()
        .map(|m| Member { name: m.name.clone(), id: m.id.clone(), medium: &m.medium as &dyn ReadAt })
        .collect();
    let decision = decide(&sources, sector_size, options, truth)?;
    if decision.is_clean {
        let recovery = decision.recovery.clone();
        return Ok(decision.report(&sources, recovery));
    }
    let Member { name, id, medium } = &members[decision.truth];
    let recovery = recover_and_mark(*medium, options, decision.marked.then_some(id))?;
    let others = || members.iter().enumerate().filter(|(n, _)| *n != decision.truth).map(|(_, m)| m);
    for other in others() {
        make_equal(medium, other.medium)
            .map_err(|e| e.while_doing(format!("making {} equal to {name}", other.name)))?;
    }
    compare(&sources)?;
    if decision.marked {
        let all = std::iter::once(&members[decision.truth]).chain(others());
        let mirror = Mirror::new(all.map(|m| (m.name.clone(), Box::new(m.medium) as Box<dyn WriteAt>)).collect())?;
        intent::clear(&mut Editor::open(&mirror)?)?;
        compare(&sources)?;
    }
    Ok(decision.report_of_all(&sources, recovery))
}

/// Makes sure that all members hold the same, past the caches where a medium can do that.
///
/// # Errors
/// [`Code::Medium`] when they do not; what the media report.
fn compare(members: &[Member<&dyn ReadAt>]) -> Result<()> {
    let Some((first, others)) = members.split_first() else { return Ok(()) };
    for other in others {
        if let Some(at) = first_difference(first.medium, other.medium)? {
            let what = format!("{} does not hold what {} holds at byte {at} of the ESP", other.name, first.name);
            return Err(Error::new(Code::Medium, what).advise("do not trust this medium: replace it"));
        }
    }
    Ok(())
}

/// What is to be done.
struct Decision {
    truth: usize,
    /// What recovering the truth alone does.
    recovery: Recovery,
    /// Whether there is room for the mark.
    marked: bool,
    /// Whether nothing is to be done.
    is_clean: bool,
}

impl Decision {
    fn report(&self, members: &[Member<&dyn ReadAt>], recovery: Recovery) -> MembersRecovery {
        MembersRecovery { truth: members[self.truth].name.clone(), recovery }
    }

    /// With what follows the recovery of the truth.
    fn report_of_all(&self, members: &[Member<&dyn ReadAt>], mut recovery: Recovery) -> MembersRecovery {
        let truth = &members[self.truth].name;
        let others = members.iter().enumerate().filter(|(n, _)| *n != self.truth);
        recovery
            .actions
            .extend(others.map(|(_, m)| Action::MakeEqual { member: m.name.clone(), truth: truth.clone() }));
        self.report(members, recovery)
    }
}

/// A member by itself.
struct State<'m> {
    /// The member as it would be behind its own recovery, with the mark.
    shadow: Shadow<'m>,
    recovery: Recovery,
    marked: bool,
    /// The operation that was interrupted.
    operation: Option<Operation>,
    /// The member that a mark names.
    names: Option<String>,
}

impl<'m> State<'m> {
    fn of(member: &Member<&'m dyn ReadAt>, sector_size: u32, options: &RecoveryOptions) -> Result<Self> {
        let (names, operation) = match Volume::open(member.medium).and_then(|volume| interrupted(&volume)) {
            Ok(Some(found)) => (found.record.and_then(|r| r.truth), found.operation),
            // What cannot be read now may be readable by the other copy of the table: the recovery says.
            Ok(None) => (None, None),
            Err(e) if e.code().is_bad_content() => (None, None),
            Err(e) => return Err(e),
        };
        let shadow = Shadow::new(member.medium, sector_size);
        match recover_and_mark(&shadow, options, Some(&member.id)) {
            Ok(recovery) => Ok(Self { shadow, recovery, marked: true, operation, names }),
            // A volume so full that nothing could be recorded on it is recovered without a mark.
            Err(e) if e.code() == Code::NoRoom => {
                let shadow = Shadow::new(member.medium, sector_size);
                let recovery = recover_with(&shadow, options)?;
                Ok(Self { shadow, recovery, marked: false, operation, names })
            }
            Err(e) => Err(e),
        }
    }

    fn rank(&self) -> u8 {
        match (self.recovery.finished, &self.recovery.interrupted) {
            (Some(true), _) => 0,
            (_, None) => 1,
            _ => 2,
        }
    }
}

fn decide(
    members: &[Member<&dyn ReadAt>],
    sector_size: u32,
    options: &RecoveryOptions,
    named: Option<usize>,
) -> Result<Decision> {
    let states: Vec<Result<State<'_>>> = members.iter().map(|m| State::of(m, sector_size, options)).collect();
    let mark = match states.iter().flatten().find_map(|s| s.names.as_ref()) {
        None => None,
        Some(id) => match members.iter().position(|m| m.id == *id).or(named) {
            None => {
                let what =
                    format!("these members were being made equal to number {id} of the array, which is not among them");
                return Err(Error::new(Code::MembersDiffer, what).advise("name all members"));
            }
            place => place,
        },
    };
    let sound = |n: &usize| states[*n].is_ok();
    let ranked = (0..members.len()).filter(sound).min_by_key(|n| states[*n].as_ref().map_or(3, State::rank));
    let Some(truth) = named.or(mark).or(ranked) else {
        return states.into_iter().find_map(Result::err).map_or_else(|| Err(Error::usage("no members")), Err);
    };
    let others = || (0..members.len()).filter(|n| *n != truth);
    if named.is_none() && mark.is_none() && states[truth].is_ok() {
        let operations: Vec<&Operation> = states.iter().flatten().filter_map(|s| s.operation.as_ref()).collect();
        for n in others() {
            explain(members, &states, [truth, n], &operations, options, sector_size)?;
        }
    }
    let mut equal = true;
    for n in others() {
        equal = equal && first_difference(members[truth].medium, members[n].medium)?.is_none();
    }
    let state = states.into_iter().nth(truth).unwrap_or_else(|| Err(Error::usage("no such member")))?;
    let is_clean = equal && state.recovery.actions.is_empty() && state.recovery.interrupted.is_none();
    Ok(Decision { truth, recovery: state.recovery, marked: state.marked, is_clean })
}

/// Makes sure that two members, once each is recovered, have the same files, but for those of the interrupted
/// operations.
fn explain(
    members: &[Member<&dyn ReadAt>],
    states: &[Result<State<'_>>],
    [truth, other]: [usize; 2],
    operations: &[&Operation],
    options: &RecoveryOptions,
    sector_size: u32,
) -> Result<()> {
    let differ = |what: &str| {
        let [a, b] = [truth, other].map(|n| members[n].name.as_str());
        Error::new(
            Code::MembersDiffer,
            format!("{a} and {b} differ in more than an interrupted operation explains: {what}"),
        )
        .advise(
            "find out which of them is right (`status` and `inspect` read each one), then run \
                 `recover --all-members … --truth MEMBER`: the others are made equal to it",
        )
    };
    let [Ok(ours), Ok(_)] = [&states[truth], &states[other]] else {
        let why = states[other].as_ref().err().map(ToString::to_string).unwrap_or_default();
        return Err(differ(&format!("{} cannot be recovered by itself ({why})", members[other].name)));
    };
    // Without a mark, as the truth will be in the end: the mark's clusters are free there.
    let theirs = Shadow::new(members[other].medium, sector_size);
    recover_with(&theirs, options)?;
    let volumes = [Volume::open(&ours.shadow as &dyn WriteAt)?, Volume::open(&theirs as &dyn WriteAt)?];
    let [Some(here), Some(there)] = [every_file(&volumes[0])?, every_file(&volumes[1])?] else {
        return Err(differ("the directories of one of them cannot be read"));
    };
    let paths = set(here.keys().chain(there.keys()));
    let mut unexplained = Vec::new();
    for path in paths {
        let same = match (here.get(path), there.get(path)) {
            (Some((a, _)), Some((b, _))) if a.is_dir() || b.is_dir() => a.is_dir() == b.is_dir(),
            (Some((a, _)), Some((b, _))) => {
                a.bytes == b.bytes && first_difference(&volumes[0].file(a)?, &volumes[1].file(b)?)?.is_none()
            }
            _ => false,
        };
        if !same && !is_of(operations, path) {
            unexplained.push(path.as_str());
        }
    }
    if let [first, ..] = unexplained.as_slice() {
        let more = match unexplained.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        return Err(differ(&format!("{first}{more}")));
    }
    same_lost_clusters(&volumes)?.map_or(Ok(()), |cluster| {
        Err(differ(&format!("cluster {cluster} belongs to no file, and may be the last copy of one")))
    })
}

/// Whether a path is one that an operation changes.
fn is_of(operations: &[&Operation], path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    directory.is_empty() && name.eq_ignore_ascii_case(INTENT_NAME)
        || operations.iter().any(|operation| operation.changes(directory, name))
}

/// A lost cluster of the second volume that the first one does not have as well.
fn same_lost_clusters(volumes: &[Volume<&dyn WriteAt>; 2]) -> Result<Option<u32>> {
    let [here, there] = [Health::check_whole(&volumes[0])?, Health::check_whole(&volumes[1])?];
    let geometry = volumes[1].geometry();
    let kept = set(here.lost.iter().flat_map(|run| run.clusters()));
    for chain in lost::Lost::sort(&volumes[1], &there.lost, None)?.others {
        for cluster in chain.clusters {
            let bytes = |v: &Volume<&dyn WriteAt>| {
                read_vec(v.source(), geometry.cluster_offset(cluster), geometry.cluster_bytes as usize)
            };
            if !kept.contains(&cluster) || bytes(&volumes[0])? != bytes(&volumes[1])? {
                return Ok(Some(cluster));
            }
        }
    }
    Ok(None)
}

/// Makes `to` equal to `from`, in an order in which what is in use on `to` is hurt as late as possible.
fn make_equal(from: &dyn WriteAt, to: &dyn WriteAt) -> Result<()> {
    let geometry = Geometry::read(from)?;
    let whole = from.size();
    let data = geometry.cluster_offset(2);
    let copy = |begin: u64, end: u64| -> Result<()> {
        let extent = Extent { offset: begin, bytes: end.saturating_sub(begin) };
        copy_differences(from, to, extent)?;
        Ok(to.barrier()?)
    };
    let own = match Geometry::read(to) {
        Ok(own) if layout(&own) == layout(&geometry) => Editor::open(to).ok(),
        _ => None,
    };
    let Some(mut editor) = own else {
        // Whatever is there, it is no volume of this shape.
        copy(data, whole)?;
        return copy(0, data);
    };
    let (free, used) = by_use(&editor);
    let extent = |run: &Run| {
        let bytes = u64::from(run.count) * u64::from(geometry.cluster_bytes);
        Extent { offset: geometry.cluster_offset(run.first), bytes }
    };
    for run in &free {
        copy_differences(from, to, extent(run))?;
    }
    to.barrier()?;
    editor.adopt(Volume::open(from)?.table())?;
    editor.barrier()?;
    for run in &used {
        copy_differences(from, to, extent(run))?;
    }
    // The fixed root directory of FAT12 and FAT16 lies between the tables and the clusters.
    let tables = geometry.fat_copy_offset(0);
    let tables_end = geometry.fat_copy_offset(geometry.fats);
    copy(tables_end, data)?;
    copy(tables, tables_end)?;
    copy(0, tables)?;
    let end = data + u64::from(geometry.clusters) * u64::from(geometry.cluster_bytes);
    copy(end.min(whole), whole)
}

/// Where the parts of a volume are.
fn layout(g: &Geometry) -> impl PartialEq + use<> {
    (g.kind, g.sector_bytes, g.cluster_bytes, g.fat_offset, g.fat_bytes, g.fats, g.root, g.data_offset, g.clusters)
}

/// The clusters that are free and those that are in use.
fn by_use(editor: &Editor<'_>) -> (Vec<Run>, Vec<Run>) {
    let table = editor.table();
    let mut sorted: [Vec<Run>; 2] = Default::default();
    for cluster in table.clusters() {
        let runs = &mut sorted[usize::from(table.link(cluster) != Link::Free)];
        match runs.last_mut() {
            Some(run) if run.first + run.count == cluster => run.count += 1,
            _ => runs.push(Run { first: cluster, count: 1 }),
        }
    }
    let [free, used] = sorted;
    (free, used)
}
