//! The line to one forge: says who we are, sends a request, and judges the answer.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use url::Url;

use crate::clock::Clock;
use crate::forge::outbound::credentials::{self, InstallationToken};
use crate::forge::outbound::dialect::{Call, Method, Project, Verdict, judge};
use crate::http::{Answer, Client, ClientError, Request, pause};
use crate::settings::Secret;
use crate::settings::forge::{Access, ForgeSettings, Kind};

/// From the first packet to the last byte of an answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why a request did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The forge wants no request before this time has passed.
    Later(Duration),
    /// Nobody is there to hear it; the reason.
    Unreachable(String),
    /// It does not work at the moment, and may have been done all the same; the reason.
    Transient(String),
    /// Nothing will work before a person did something; the reason.
    Denied(String),
    /// Not this request; the reason.
    Refused(String),
}

/// The line to one forge.
pub struct Line {
    settings: ForgeSettings,
    project: Project,
    clock: Clock,
    client: Option<Client>,
    installation: Option<InstallationToken>,
    /// After the last answer: for how long there will be no other.
    exhausted: Option<Duration>,
    /// True when the last answer was that the forge does not know us.
    is_unknown: bool,
}

impl Line {
    /// A line that has not been used yet.
    pub fn new(settings: ForgeSettings, clock: Clock) -> Self {
        let project = Project { kind: settings.kind, name: settings.project.clone() };
        Self { settings, project, clock, client: None, installation: None, exhausted: None, is_unknown: false }
    }

    /// The repository at the other end.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// For how long the last answer said that there will be no other.
    pub fn take_exhausted(&mut self) -> Option<Duration> {
        self.exhausted.take()
    }

    /// Sends a request. The answer is one of success.
    pub async fn ask(&mut self, call: &Call) -> Result<Answer, Trouble> {
        let is_used = self.installation.is_some();
        let who = self.who().await?;
        let mut outcome = self.send(call, &who).await;
        if self.is_unknown && self.installation.take().is_some() && is_used {
            // An App's token that was good before may have been taken back before its time. Nothing was done with it, so the same is asked
            // once more with a new one.
            let who = self.who().await?;
            outcome = self.send(call, &who).await;
        }
        if matches!(outcome, Err(Trouble::Denied(_))) {
            // What a new token may do is looked up anew: somebody may have allowed more meanwhile.
            self.installation = None;
        }
        outcome
    }

    async fn send(&mut self, call: &Call, who: &(&'static str, Secret)) -> Result<Answer, Trouble> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let (ca_file, proxies) = (self.settings.ca_file.clone(), self.settings.proxies.clone());
                let largest = self.settings.largest_answer;
                let make = move || Client::new(ca_file.as_deref(), DEADLINE, largest, proxies);
                let made =
                    tokio::task::spawn_blocking(make).await.map_err(|error| Trouble::Transient(error.to_string()))?;
                self.client.insert(made.map_err(|error| Trouble::Denied(error.to_string()))?).clone()
            }
        };
        self.is_unknown = false;
        let request = request(self.settings.kind, &self.settings.api, call, who)?;
        let answer = client.send(&request).await.map_err(|error| match error {
            ClientError::Unreachable { .. } => Trouble::Unreachable(error.to_string()),
            ClientError::Certificates { .. } | ClientError::NoCertificates => Trouble::Denied(error.to_string()),
            ClientError::Broken { .. } | ClientError::TooSlow { .. } | ClientError::Request(_) => {
                Trouble::Transient(error.to_string())
            }
        })?;
        let now = self.clock.now();
        let verdict = judge(self.settings.kind, &answer, now);
        self.exhausted = pause(&answer, now);
        self.is_unknown = answer.status == 401;
        match verdict {
            Verdict::Done => Ok(answer),
            Verdict::Later(pause) => Err(Trouble::Later(pause)),
            Verdict::Transient(why) => Err(Trouble::Transient(why)),
            Verdict::Denied(why) => Err(Trouble::Denied(format!("{why}; it needs {}", self.settings.kind.scopes()))),
            Verdict::Refused(why) => Err(Trouble::Refused(why)),
        }
    }

    async fn who(&mut self) -> Result<(&'static str, Secret), Trouble> {
        let denied = |error: credentials::CredentialError| Trouble::Denied(error.to_string());
        let (id, installation, key) = match &self.settings.access {
            Access::Token { file, user } => {
                return credentials::with_token(self.settings.kind, file, user.as_deref()).map_err(denied);
            }
            Access::App { id, installation, key } => (id.clone(), *installation, key.clone()),
        };
        let now = self.clock.now();
        if let Some(token) = self.installation.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(credentials::bearer(token.token.expose()));
        }
        let jwt = credentials::app_jwt(&id, &key, now).map_err(denied)?;
        let app = credentials::bearer(jwt.expose());
        let installation = match installation {
            Some(installation) => installation,
            None => {
                let answer = self.send(&Call::get(format!("{}/installation", self.project.path())), &app).await?;
                let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let id = value["id"].as_u64();
                id.ok_or_else(|| Trouble::Transient("GitHub does not say where the App is installed".to_owned()))?
            }
        };
        let call = Call::send(Method::Post, format!("app/installations/{installation}/access_tokens"), json!({}));
        let answer = self.send(&call, &app).await?;
        let token = InstallationToken::read(&answer.body, now)
            .ok_or_else(|| Trouble::Transient("GitHub gave the App no token".to_owned()))?;
        let who = credentials::bearer(token.token.expose());
        self.installation = Some(token);
        Ok(who)
    }
}

/// The request for a call, with this header that says who we are.
pub(super) fn request(kind: Kind, api: &Url, call: &Call, who: &(&'static str, Secret)) -> Result<Request, Trouble> {
    let whole = format!("{}/{}", api.as_str().trim_end_matches('/'), call.path);
    let target = Url::parse(&whole).map_err(|error| Trouble::Transient(error.to_string()))?;
    Ok(Request {
        method: call.method.name(),
        target,
        headers: kind.headers(),
        secrets: vec![who.clone()],
        body: call.body.as_ref().map(|body| Bytes::from(body.to_string())),
    })
}
