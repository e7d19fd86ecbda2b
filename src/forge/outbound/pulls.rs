//! Pull requests in the forges' dialects: the one that a commit came from, its comments, and new ones. Pure.

use serde_json::{Value, json};

use crate::fleet::snapshot::CommitId;
use crate::forge::outbound::dialect::{Call, Kind, Method, Project};
use crate::time::Timestamp;
use crate::view::text::is_invisible;

/// A pull request that is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPull {
    /// The branch that it brings.
    pub branch: String,
    /// The branch that it is for.
    pub base: String,
    /// Its title.
    pub title: String,
    /// Its text, in Markdown.
    pub text: String,
}

impl Project {
    /// Asks for the pull requests that a commit came from.
    pub fn find_merged(&self, commit: CommitId) -> Call {
        let path = self.path();
        Call::get(match self.kind {
            Kind::GitHub => format!("{path}/commits/{commit}/pulls?per_page=100"),
            Kind::GitLab => format!("{path}/repository/commits/{commit}/merge_requests?per_page=100"),
            Kind::Gitea => format!("{path}/commits/{commit}/pull"),
            // Never asked: settings allow no comments there.
            Kind::Bitbucket => format!("{path}/commit/{commit}/pullrequests"),
        })
    }

    /// The merged one among them: the one that this very commit is the merge of, else the first.
    pub fn read_merged(&self, commit: CommitId, body: &[u8]) -> Option<u64> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let all: Vec<Value> = match value {
            Value::Array(all) => all,
            Value::Object(_) => vec![value],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
        let is_merged = |pull: &&Value| match self.kind {
            Kind::GitHub => pull["merged_at"].is_string(),
            Kind::GitLab => pull["state"] == "merged",
            Kind::Gitea => pull["merged"] == true,
            Kind::Bitbucket => pull["state"] == "MERGED",
        };
        let id = commit.to_string();
        let is_this = |pull: &&Value| {
            ["merge_commit_sha", "squash_commit_sha"].iter().any(|key| pull[*key].as_str() == Some(id.as_str()))
        };
        let merged: Vec<&Value> = all.iter().filter(is_merged).collect();
        let chosen = merged.iter().copied().find(|pull| is_this(pull)).or_else(|| merged.first().copied())?;
        chosen[if self.kind == Kind::GitLab { "iid" } else { "number" }].as_u64()
    }

    fn comments(&self, pull: u64) -> String {
        let path = self.path();
        match self.kind {
            Kind::GitHub | Kind::Gitea => format!("{path}/issues/{pull}/comments"),
            Kind::GitLab => format!("{path}/merge_requests/{pull}/notes"),
            Kind::Bitbucket => format!("{path}/pullrequests/{pull}/comments"),
        }
    }

    /// Asks for the comments that a pull request got since then.
    pub fn list_comments(&self, pull: u64, since: Timestamp) -> Call {
        let comments = self.comments(pull);
        Call::get(match self.kind {
            Kind::GitHub => format!("{comments}?per_page=100&since={since}"),
            Kind::Gitea => format!("{comments}?since={since}"),
            Kind::GitLab => format!("{comments}?per_page=100&sort=desc&order_by=created_at"),
            Kind::Bitbucket => format!("{comments}?pagelen=100"),
        })
    }

    /// The newest comment that begins with this marker. Somebody else may have quoted it, but not at the beginning.
    pub fn read_comment(&self, marker: &str, body: &[u8]) -> Option<u64> {
        let all: Vec<Value> = serde_json::from_slice(body).ok()?;
        let ours = all.iter().filter(|one| one["body"].as_str().is_some_and(|text| text.starts_with(marker)));
        ours.filter_map(|one| one["id"].as_u64()).max()
    }

    /// Makes a comment.
    pub fn create_comment(&self, pull: u64, text: &str) -> Call {
        Call::send(Method::Post, self.comments(pull), json!({"body": text}))
    }

    /// Replaces a comment.
    pub fn update_comment(&self, pull: u64, comment: u64, text: &str) -> Call {
        match self.kind {
            Kind::GitHub | Kind::Gitea => {
                let path = format!("{}/issues/comments/{comment}", self.path());
                Call::send(Method::Patch, path, json!({"body": text}))
            }
            Kind::GitLab | Kind::Bitbucket => {
                Call::send(Method::Put, format!("{}/{comment}", self.comments(pull)), json!({"body": text}))
            }
        }
    }

    /// The id of what was made just now.
    pub fn read_id(&self, body: &[u8]) -> Option<u64> {
        serde_json::from_slice::<Value>(body).ok()?["id"].as_u64()
    }

    /// Asks for pull requests from this branch, whatever became of them.
    pub fn find_pulls_from(&self, branch: &str) -> Call {
        let path = self.path();
        let encoded = branch.replace('/', "%2F");
        Call::get(match self.kind {
            Kind::GitHub => format!("{path}/pulls?state=all&head={}:{encoded}", self.owner()),
            Kind::GitLab => format!("{path}/merge_requests?state=all&source_branch={encoded}"),
            // It has no question about a branch that all versions know: the newest ones have to do.
            Kind::Gitea => format!("{path}/pulls?state=all&sort=recentupdate&limit=50"),
            Kind::Bitbucket => format!(
                "{path}/pullrequests?q=source.branch.name%3D%22{encoded}%22&state=OPEN&state=MERGED&state=DECLINED&state=SUPERSEDED"
            ),
        })
    }

    /// Where the first of them is.
    pub fn read_pull_from(&self, branch: &str, body: &[u8]) -> Option<String> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let all = if self.kind == Kind::Bitbucket { &value["values"] } else { &value };
        let all = all.as_array()?;
        let is_it = |pull: &&Value| match self.kind {
            Kind::GitHub | Kind::GitLab | Kind::Bitbucket => true,
            Kind::Gitea => pull["head"]["ref"].as_str() == Some(branch),
        };
        all.iter().find(is_it).map(|pull| self.address(pull))
    }

    /// Opens a pull request.
    pub fn open_pull(&self, new: &NewPull) -> Call {
        let NewPull { branch, base, title, text } = new;
        let path = self.path();
        match self.kind {
            Kind::GitHub | Kind::Gitea => Call::send(
                Method::Post,
                format!("{path}/pulls"),
                json!({"title": title, "head": branch, "base": base, "body": text}),
            ),
            Kind::GitLab => Call::send(
                Method::Post,
                format!("{path}/merge_requests"),
                json!({
                    "title": title, "source_branch": branch, "target_branch": base, "description": text,
                    "remove_source_branch": true
                }),
            ),
            Kind::Bitbucket => Call::send(
                Method::Post,
                format!("{path}/pullrequests"),
                json!({
                    "title": title, "source": {"branch": {"name": branch}}, "destination": {"branch": {"name": base}},
                    "description": text, "close_source_branch": true
                }),
            ),
        }
    }

    /// Where the pull request is that was opened just now.
    pub fn read_opened(&self, body: &[u8]) -> String {
        serde_json::from_slice::<Value>(body).map(|pull| self.address(&pull)).unwrap_or_default()
    }

    fn address(&self, pull: &Value) -> String {
        let address = match self.kind {
            Kind::GitHub | Kind::Gitea => &pull["html_url"],
            Kind::GitLab => &pull["web_url"],
            Kind::Bitbucket => &pull["links"]["html"]["href"],
        };
        let shown = |c: &char| !c.is_control() && !is_invisible(*c);
        address.as_str().unwrap_or_default().chars().filter(shown).take(500).collect()
    }
}
