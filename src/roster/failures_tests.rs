//! Which failures are alike, and what tells the failed from their peers.

use proptest::prelude::*;

use super::*;

fn id(number: usize) -> AgentId {
    let bytes = u128::try_from(number + 1).expect("a small number").to_be_bytes();
    AgentId::new(&bytes).expect("a valid id")
}

fn labels(text: &str) -> Labels {
    Labels::new(text.split(' ').filter_map(|pair| pair.split_once('=')))
}

/// All failed with the same words.
fn alike(failed: &[Labels], peers: &[Labels]) -> Option<Common> {
    let form = Arc::from("cannot start");
    let known: BTreeMap<AgentId, &Labels> =
        failed.iter().enumerate().map(|(number, labels)| (id(number), labels)).collect();
    let failed = known.keys().map(|id| Failed { id: *id, message: "cannot start", form: &form });
    let mut clusters = cluster(failed, |id| known.get(&id).copied(), || peers.iter().collect());
    assert_eq!(clusters.len(), 1);
    clusters.remove(0).common
}

/// Agents of which nothing is known but what they said.
fn of_messages(messages: &[&str], peers: impl FnOnce() -> Vec<&'static Labels>) -> Vec<Cluster> {
    let mut group = Group::default();
    for (number, message) in messages.iter().enumerate() {
        group.remember(id(number), None, Failure::new(ConfigHash::new([1; 32]), (*message).into()));
    }
    let failed = group.failures.iter().map(|(id, one)| Failed { id: *id, message: &one.message, form: &one.form });
    // What is returned holds nothing of the group.
    cluster(failed, |_| None, || peers().into_iter().collect())
}

#[test]
fn a_look_at_a_whole_fleet_that_failed_is_bounded() {
    let mut group = Group::default();
    for number in 0..19_000 {
        let message =
            format!("Agent process PID={number} exited: {}", if number % 3 == 0 { "port in use" } else { "no" });
        group.remember(id(number), None, Failure::new(ConfigHash::new([1; 32]), message.into()));
    }
    let asked = std::cell::Cell::new(0);
    let all = labels("os.type=linux");
    let failed = group.failures.iter().map(|(id, one)| Failed { id: *id, message: &one.message, form: &one.form });
    let clusters = cluster(
        failed,
        |_| {
            asked.set(asked.get() + 1);
            Some(&all)
        },
        Vec::new,
    );
    assert_eq!(clusters.iter().map(|cluster| cluster.count).collect::<Vec<_>>(), [12_666, 6_334]);
    assert_eq!(asked.get(), 2 * MOST_FAILED, "of each kind some are looked at");
}

#[test]
fn what_the_journal_remembered_gets_its_form_once_the_agent_is_back() {
    let hash = ConfigHash::new([1; 32]);
    let message = |number: usize| format!("lookup gateway-{} failed", ["blue", "green"][number]);
    let mut group = Group::default();
    group.restore_failures((0..2).map(|number| (id(number), Failure::new(hash, message(number).into()))).collect());
    let kinds = |group: &Group| of_group(group, &[hash], |_| None).len();
    assert_eq!(kinds(&group), 2, "nobody knows whose names these are");
    group.reform(id(0), &labels("host.name=gateway-blue"));
    group.reform(id(1), &labels("host.name=gateway-green"));
    assert_eq!(kinds(&group), 1);
}

fn many(count: usize, text: impl Fn(usize) -> String) -> Vec<Labels> {
    (0..count).map(|number| labels(&text(number))).collect()
}

fn named(common: &Common) -> Vec<String> {
    common.pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

#[test]
fn messages_are_equal_without_what_differs_from_agent_to_agent() {
    for (one, other) in [
        ("Agent process PID=12 exited, exit code=1.", "Agent process PID=4711 exited, exit code=2."),
        ("listen tcp 10.0.0.7:4317: bind: in use", "listen tcp 10.11.0.8:4317: bind: in use"),
        ("dial [fe80::1%eth0]:4317: refused", "dial [2001:db8::a:b]:4317: refused"),
        ("dial fe80::1: refused", "dial 2001:db8:0:0::c:d: refused"),
        ("open /var/lib/otel/12/queue: denied", "open /var/lib/otel/7/queue: denied"),
        ("trace 0191a4f2-81f2-772e-b193-011beed33277 lost", "trace 0291a4f2-81f2-772e-b193-011beed33211 lost"),
        ("commit \"deadbeef\" is bad", "commit \"cafebabe\" is bad"),
        ("after 1m30s:  gave up", "after 45s: gave\tup"),
        ("in line 7, column 3", "in line 12, column 1"),
        ("at 2026-11-20T09:30:00Z it stopped", "at 2026-11-21T10:31:07Z it stopped"),
    ] {
        assert_eq!(normal_form(one, None), normal_form(other, None), "{one}");
    }
    for (one, other) in [
        ("unknown receiver \"otpl\"", "unknown receiver \"jaegr\""),
        ("open /var/lib/a7/queue: denied", "open /var/lib/a7/state: denied"),
        ("pid=7 exited", "uid=7 exited"),
        ("otlp/2: in use", "debug/2: in use"),
        ("error: a:b: no", "error: a:c: no"),
    ] {
        assert_ne!(normal_form(one, None), normal_form(other, None), "{one}");
    }
    let named = |name: &str| {
        normal_form(&format!("lookup {name}.example.com: no such host"), Some(&labels(&format!("host.name={name}"))))
    };
    assert_eq!(named("gateway-blue"), named("gateway-green"), "an agent's own name is no difference");
    assert_ne!(named("gw"), named("db"), "a name that is short may be a part of any word");
    assert_eq!(normal_form("", None), "");
    assert_eq!(normal_form("/ : ü/7", None), "/ : ü/#");
}

#[test]
fn alike_messages_are_one_cluster() {
    let messages = ["PID=12 exited", "PID=4711 exited", "unknown receiver \"otpl\"", "PID=9 exited"];
    let clusters = of_messages(&messages, || panic!("without labels there is nothing to compare with"));
    let shown: Vec<(usize, &str)> = clusters.iter().map(|cluster| (cluster.count, cluster.message.as_str())).collect();
    assert_eq!(shown, [(3, messages[0]), (1, messages[2])]);
}

#[test]
fn many_kinds_are_bounded_and_no_failure_is_lost() {
    let messages: Vec<String> = (1u8..=20).map(|letter| format!("kind {}", char::from(b'a' + letter))).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let clusters = of_messages(&messages, Vec::new);
    assert_eq!(clusters.len(), MOST_CLUSTERS);
    assert_eq!(clusters.iter().map(|cluster| cluster.count).sum::<usize>(), 20);
    assert_eq!(
        clusters.last().map(|last| (last.message.as_str(), last.count, last.example)),
        Some(("other failures", 16, id(4)))
    );
}

#[test]
fn what_the_failed_have_and_their_peers_have_not_is_named() {
    let failed = many(31, |number| format!("host.name=w{number} os.type=windows service.version=0.98 env=prod"));
    let peers = many(400, |number| format!("host.name=l{number} os.type=linux service.version=0.99 env=prod"));
    let common = alike(&failed, &peers).expect("something");
    assert_eq!(named(&common), ["os.type=windows", "service.version=0.98"]);
    assert_eq!((common.sharing, common.peers, common.peers_sharing), (31, 400, 0));
}

#[test]
fn labels_that_tell_only_together_are_named_together() {
    let failed = many(10, |number| format!("host.name=f{number} os.type=windows region=eu"));
    let peers = many(100, |number| match number % 2 {
        0 => format!("host.name=p{number} os.type=windows region=us"),
        _ => format!("host.name=p{number} os.type=linux region=eu"),
    });
    let common = alike(&failed, &peers).expect("something");
    assert_eq!(named(&common), ["os.type=windows", "region=eu"]);
    assert_eq!((common.sharing, common.peers_sharing), (10, 0));
}

#[test]
fn one_in_ten_may_be_an_exception_and_more_may_not() {
    let failed = |others: usize| {
        many(20, move |number| if number < others { "version=2".to_owned() } else { "version=1".to_owned() })
    };
    let peers = |sick: usize| {
        many(50, move |number| if number < sick { "version=1".to_owned() } else { "version=2".to_owned() })
    };
    let common = alike(&failed(2), &peers(5)).expect("something");
    assert_eq!((named(&common), common.sharing, common.peers_sharing), (vec!["version=1".to_owned()], 18, 5));
    assert_eq!(alike(&failed(3), &peers(5)), None, "too many of the failed are otherwise");
    assert_eq!(alike(&failed(2), &peers(6)), None, "too many of the peers are alike");
}

#[test]
fn too_few_tell_nothing() {
    let windows = |count| many(count, |number| format!("host.name=w{number} os.type=windows"));
    let linux = |count| many(count, |number| format!("host.name=l{number} os.type=linux"));
    assert_eq!(alike(&windows(1), &linux(100)), None, "one agent has everything in common with itself");
    assert_eq!(alike(&windows(5), &linux(2)), None);
    assert_eq!(alike(&windows(5), &[]), None);
    assert!(alike(&windows(2), &linux(3)).is_some());
    assert_eq!(alike(&windows(5), &windows(50)), None, "nothing is different");
    assert_eq!(alike(&many(5, |_| String::new()), &linux(50)), None, "no labels, nothing in common");
}

#[test]
fn the_three_most_telling_pairs_are_enough() {
    let failed = many(4, |_| "a=1 b=1 c=1 d=1 e=1".to_owned());
    let peers = many(100, |number| format!("a=1 b={} c=2 d=2 e={}", number % 20, number % 11));
    let common = alike(&failed, &peers).expect("something");
    assert_eq!(named(&common), ["c=1", "d=1", "b=1"], "those that fewest peers have come first");
}

#[test]
fn labels_without_end_are_looked_at_up_to_a_bound() {
    let failed = many(3, |_| (0..500).map(|number| format!("k{number:03}=1 ")).collect());
    let peers = many(20_000, |_| "k000=2".to_owned());
    let common = alike(&failed, &peers).expect("something");
    assert_eq!((common.pairs.len(), common.peers), (MOST_PAIRS, MOST_PEERS));
}

fn agents(most: usize) -> impl Strategy<Value = Vec<Labels>> {
    let pair = (0..6u8, 0..3u8).prop_map(|(key, value)| (format!("k{key}"), value.to_string()));
    prop::collection::vec(prop::collection::vec(pair, 0..6).prop_map(Labels::new), 0..most)
}

proptest! {
    #[test]
    fn what_is_named_holds(failed in agents(30), peers in agents(60)) {
        prop_assume!(!failed.is_empty());
        if let Some(common) = alike(&failed, &peers) {
            let has = |labels: &&Labels| common.pairs.iter().all(|(key, value)| labels.get(key) == Some(value));
            prop_assert!(!common.pairs.is_empty() && common.pairs.len() <= MOST_PAIRS);
            prop_assert_eq!(common.sharing, failed.iter().filter(has).count());
            prop_assert_eq!(common.peers_sharing, peers.iter().filter(has).count());
            prop_assert!(common.sharing * 10 >= failed.len() * 9);
            prop_assert!(common.peers_sharing * 10 <= peers.len());
        }
    }

    #[test]
    fn any_message_has_a_form(message in "\\PC{0,80}", name in "\\PC{0,10}") {
        let form = normal_form(&message, Some(&Labels::new([("host.name", name)])));
        prop_assert!(form.len() <= message.len().max(1) * 2);
    }
}
