//! Checks who is to be told of incidents.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Reader, absolute, access, boolean, directory};
use crate::settings::alerts::{
    Address, AlertSettings, Least, Receiver, ReceiverKind, STALE_AFTER, WAITS_TOO_LONG, is_exposed, parse_url,
};
use crate::settings::layers::{AlertsArgs, ReceiverArgs, Source, Text};
use crate::settings::limits::LARGEST_ANSWER;
use crate::settings::proxy::Proxies;
use crate::settings::{Problem, SecretFile};
use crate::time::{parse_duration, show_duration};

/// Receivers that may be named.
const MOST_RECEIVERS: usize = 32;

/// Globs that one receiver may name.
const MOST_GLOBS: usize = 100;

/// Reads `alerts`; `None` when nothing is said of it, or nothing good, which is noted.
pub(super) fn alerts(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Option<AlertSettings> {
    let (text, source) = reader.given.get("alerts")?;
    // It was written by us from what the file's reader took.
    let args: AlertsArgs = serde_json::from_str(text).ok()?;
    let mut checking = Checking { source, problems: Vec::new(), warnings };
    let settings = checking.all(&args);
    let is_good = checking.problems.is_empty();
    reader.problems.append(&mut checking.problems);
    Some(settings).filter(|_| is_good)
}

struct Checking<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
    warnings: &'a mut Vec<String>,
}

impl Checking<'_> {
    fn problem(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(Problem { setting: self.source.name(place), message: message.into() });
    }

    fn take<T>(&mut self, place: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|message| self.problem(place, message)).ok()
    }

    fn all(&mut self, args: &AlertsArgs) -> AlertSettings {
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        let waits_too_long =
            self.duration("alerts.waitsTooLong", args.waits_too_long.as_ref(), WAITS_TOO_LONG, (minute, 30 * day));
        let stale_after =
            self.duration("alerts.staleAfter", args.stale_after.as_ref(), STALE_AFTER, (Duration::from_secs(1), day));
        if args.receivers.is_empty() {
            self.problem("alerts.receivers", "nobody is named who is told: name at least one, or leave `alerts` out");
        }
        if args.receivers.len() > MOST_RECEIVERS {
            self.problem("alerts.receivers", format!("at most {MOST_RECEIVERS} can be told"));
        }
        let mut names = BTreeSet::new();
        let mut receivers = Vec::new();
        for (index, one) in args.receivers.iter().take(MOST_RECEIVERS).enumerate() {
            let place = format!("alerts.receivers[{index}]");
            if let Some(receiver) = self.receiver(&place, one) {
                if !names.insert(receiver.name.clone()) {
                    self.problem(&format!("{place}.name"), "another receiver has this name: give each its own");
                }
                receivers.push(receiver);
            }
        }
        AlertSettings { waits_too_long, stale_after, receivers }
    }

    fn duration(
        &mut self,
        place: &str,
        text: Option<&Text>,
        default: Duration,
        (least, most): (Duration, Duration),
    ) -> Duration {
        let Some(Text(text)) = text else { return default };
        let read = parse_duration(text).map_err(|error| error.to_string()).and_then(|length| {
            let is_fit = (least..=most).contains(&length);
            let bounds = || format!("must be from {} to {}, not {text}", show_duration(least), show_duration(most));
            if is_fit { Ok(length) } else { Err(bounds()) }
        });
        self.take(place, read).unwrap_or(default)
    }

    fn receiver(&mut self, place: &str, args: &ReceiverArgs) -> Option<Receiver> {
        let at = |key: &str| format!("{place}.{key}");
        let name = self.take(&at("name"), name(args.name.as_ref()));
        let kind = self.take(&at("type"), kind(args.kind.as_ref()));
        let address = self.address(place, args, kind);
        let secret = self.file(&at("secretFile"), args.secret_file.as_ref());
        let token = self.file(&at("tokenFile"), args.token_file.as_ref());
        let ca_file = self.ca_file(&at("caFile"), args.ca_file.as_ref());
        let least = self.take(&at("severity"), least(args.severity.as_ref()));
        let groups = self.groups(&at("groups"), args.groups.as_deref().unwrap_or_default());
        let fleet = args.fleet.as_ref().map_or(Ok(true), |Text(text)| boolean(text));
        let fleet = self.take(&at("fleet"), fleet);
        if args.secret_file.is_some() && kind.is_some_and(|kind| kind != ReceiverKind::Webhook) {
            self.problem(&at("secretFile"), "only messages of the type `webhook` are signed: leave it out");
        }
        let exposed = address.as_ref().and_then(|address| address.get().ok()).is_some_and(|url| is_exposed(&url));
        if exposed && (token.is_some() || kind == Some(ReceiverKind::Slack)) {
            let what = if token.is_some() { "the token" } else { "the address, which is a secret," };
            self.problem(
                place,
                format!("it is reached over http://, which would show {what} to everybody on the way: use https://"),
            );
        }
        if let (Some(ReceiverKind::Webhook), None, Some(name)) = (kind, &secret, &name) {
            self.warnings.push(format!(
                "messages to the receiver `{name}` are not signed: whoever knows its address can send it others (secretFile)"
            ));
        }
        Some(Receiver {
            name: name?,
            kind: kind?,
            address: address?,
            secret,
            token,
            ca_file,
            least: least?,
            groups: groups?,
            fleet: fleet?,
            proxies: Proxies::default(),
            largest_answer: LARGEST_ANSWER,
        })
    }

    fn address(&mut self, place: &str, args: &ReceiverArgs, kind: Option<ReceiverKind>) -> Option<Address> {
        match (&args.url, &args.url_file) {
            (Some(_), None) if kind == Some(ReceiverKind::Slack) => {
                self.problem(
                    &format!("{place}.url"),
                    "whoever knows it can write to the channel: put it into a file, and name that with urlFile",
                );
                None
            }
            (Some(Text(text)), None) => {
                let url = parse_url(text);
                self.take(&format!("{place}.url"), url).map(Address::Said)
            }
            (None, Some(_)) => {
                let place = format!("{place}.urlFile");
                let address = Address::File(self.file(&place, args.url_file.as_ref())?);
                let read = address.get().map(drop).map_err(|error| error.to_string());
                self.take(&place, read)?;
                Some(address)
            }
            (Some(_), Some(_)) => {
                self.problem(place, "`url` and `urlFile` say the same: leave one out");
                None
            }
            (None, None) => {
                self.problem(place, "it is not said where it is: url, or urlFile with the address in a file");
                None
            }
        }
    }

    fn path(&mut self, place: &str, text: Option<&Text>) -> Option<PathBuf> {
        let path = absolute(directory(self.source), &text?.0);
        self.take(place, path)
    }

    fn file(&mut self, place: &str, text: Option<&Text>) -> Option<SecretFile> {
        let file = SecretFile::new(self.path(place, text)?);
        let given = text.map_or("", |Text(text)| text.as_str());
        let read = file.read().map(drop).map_err(|error| access::unnamed(&error, given));
        self.take(place, read)?;
        Some(file)
    }

    fn ca_file(&mut self, place: &str, text: Option<&Text>) -> Option<PathBuf> {
        let path = self.path(place, text)?;
        let opened = access::open(&path, text.map_or("", |Text(text)| text.as_str()));
        self.take(place, opened).map(|()| path)
    }

    fn groups(&mut self, place: &str, globs: &[Text]) -> Option<Vec<String>> {
        if globs.len() > MOST_GLOBS {
            self.problem(place, format!("at most {MOST_GLOBS} patterns can be named"));
            return None;
        }
        let checked = globs.iter().map(|Text(glob)| match globset::Glob::new(glob) {
            Ok(_) if !glob.is_empty() && glob.len() <= 256 => Ok(glob.clone()),
            Ok(_) => Err("a pattern is empty, or longer than 256 characters".to_owned()),
            Err(error) => Err(format!("not a pattern like `prod/**`: {error}")),
        });
        let checked = checked.collect::<Result<Vec<String>, String>>();
        self.take(place, checked)
    }
}

fn name(text: Option<&Text>) -> Result<String, String> {
    let Some(Text(text)) = text else {
        return Err("missing: what it is called in logs, metrics and commands".to_owned());
    };
    let is_fit =
        !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_fit { Ok(text.clone()) } else { Err("must be letters, digits, `-`, `_` and `.`, at most 64".to_owned()) }
}

fn kind(text: Option<&Text>) -> Result<ReceiverKind, String> {
    let all = "webhook, slack or alertmanager";
    let Some(Text(text)) = text else { return Err(format!("missing: {all}")) };
    let found = ReceiverKind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("must be {all}, not {}", text.chars().take(64).collect::<String>()))
}

fn least(text: Option<&Text>) -> Result<Least, String> {
    match text.map(|Text(text)| text.as_str()) {
        None | Some("warning") => Ok(Least::Warning),
        Some("critical") => Ok(Least::Critical),
        Some(other) => Err(format!(
            "must be warning (which means both) or critical, not {}",
            other.chars().take(64).collect::<String>()
        )),
    }
}
