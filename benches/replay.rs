//! How many recorded events a second one core decides, and what bounds it.
//!
//! Prints, for nested ECS documents of about 1.5 kB of which none matches:
//! reading alone by `serde_json` (whole, and only validated), reading as replay
//! does, and replay's reading and deciding with 1 and with 60 rules. All in one
//! run on one thread, best of several rounds, so that the numbers can be held
//! against each other on any machine.
//!
//! `cargo bench --bench replay`; `--test` runs one short round.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ssh_keywatch::eql::{Scan, Wanted};
use ssh_keywatch::rule::{Fields, RuleSet};

/// Different documents, so that no branch is learnt by heart.
const DOCUMENTS: usize = 512;

fn main() {
    let short = std::env::args().any(|arg| arg == "--test");
    let rounds = if short { 1 } else { 40 };
    let documents = documents();
    let bytes: usize = documents.iter().map(String::len).sum();
    println!(
        "{} documents of {} bytes on average",
        DOCUMENTS,
        bytes / DOCUMENTS
    );
    let bench = Bench {
        documents: &documents,
        rounds,
        bytes,
    };
    bench.time("serde_json: into a tree", |text| {
        black_box(serde_json::from_str::<Value>(text).is_ok())
    });
    bench.time("serde_json: validated only", |text| {
        black_box(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
    });
    let nothing = Wanted::new();
    bench.time("replay: validated only", |text| {
        black_box(Scan::read(text, &nothing).is_ok())
    });
    for count in [1, 60] {
        let (rules, wanted) = rules(count);
        let read = bench.time(&format!("replay: read for {count} rules"), |text| {
            black_box(Scan::read(text, &wanted).is_ok())
        });
        let both = bench.time(&format!("replay: read, {count} rules asked"), |text| {
            let scan = Scan::read(text, &wanted).expect("the documents are JSON");
            !black_box(rules.any_matches(&scan))
        });
        println!(
            "  evaluation: {} ns an event",
            both.saturating_sub(read).as_nanos()
        );
    }
}

struct Bench<'a> {
    documents: &'a [String],
    rounds: u32,
    bytes: usize,
}

impl Bench<'_> {
    /// Time per event of the best round.
    fn time(&self, what: &str, mut work: impl FnMut(&str) -> bool) -> Duration {
        let mut best = Duration::MAX;
        for _ in 0..self.rounds {
            let start = Instant::now();
            for document in self.documents {
                assert!(work(black_box(document)), "{what}");
            }
            best = best.min(start.elapsed());
        }
        let seconds = best.as_secs_f64();
        let events = f64::from(u32::try_from(self.documents.len()).unwrap_or(u32::MAX));
        let megabytes = f64::from(u32::try_from(self.bytes / 1000).unwrap_or(u32::MAX)) / 1000.0;
        println!(
            "{what:32} {:>9.0} events/s {:>6.0} ns/event {:>6.0} MB/s",
            events / seconds,
            seconds * 1e9 / events,
            megabytes / seconds
        );
        best / u32::try_from(self.documents.len()).unwrap_or(u32::MAX)
    }
}

/// So many rules in the manner of Elastic's Linux file rules.
fn rules(count: usize) -> (RuleSet, Wanted) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for index in 0..count {
        let query = match index % 6 {
            0 => "file where host.os.type == \"linux\" and event.action in (\"creation\", \"file_create_event\") and process.executable == \"/usr/bin/ssh-keygen\" and file.path : (\"/home/*/.ssh/*\", \"/root/.ssh/*\", \"/etc/ssh/*\") and not file.name : \"known_hosts.*\"".to_owned(),
            1 => format!("file where host.os.type == \"linux\" and event.action in (\"rename\", \"creation\") and file.path : (\"/etc/systemd/system/unit{index}-*\", \"/usr/lib/systemd/system/*\", \"/home/*/.config/systemd/user/*\") and file.extension in (\"service\", \"timer\") and not process.executable in (\"/usr/bin/dpkg\", \"/usr/bin/rpm\", \"/bin/dnf\", \"/usr/bin/apt\")"),
            2 => format!("file where host.os.type == \"linux\" and event.type == \"creation\" and file.path like~ (\"/etc/cron.d/job{index}*\", \"/var/spool/cron/*\") and not (process.name == \"sed\" and file.name : \"sed*\")"),
            3 => format!("file where host.os.type == \"linux\" and event.action == \"rename\" and file.Ext.original.name : \"*.tmp{index}\" and not process.executable : \"/nix/store/*\""),
            4 => format!("file where host.os.type == \"linux\" and process.name in (\"curl\", \"wget\", \"tool{index}\") and file.path : (\"/tmp/*\", \"/dev/shm/*\", \"/var/tmp/*\")"),
            _ => format!("file where host.os.type == \"linux\" and event.action != \"deletion\" and file.name : (\"authorized_keys{index}\", \"id_*{index}\") and process.executable != null and not process.executable in (\"/usr/sbin/sshd\", \"/usr/bin/ssh\")"),
        };
        let mut text = String::from("[rule]\ntype = \"eql\"\nseverity = \"low\"\n");
        let _ = write!(
            text,
            "rule_id = \"r{index}\"\nname = \"R{index}\"\nquery = '''{query}'''\n"
        );
        fs::write(directory.path().join(format!("{index:03}.toml")), text).expect("a file");
    }
    let mut rules = RuleSet::load_with(&[directory.path().to_owned()], false, Fields::Any)
        .expect("the rules are valid");
    let mut wanted = Wanted::new();
    rules.number_fields(&mut wanted);
    (rules, wanted)
}

/// Events as Elastic Defend records them.
fn documents() -> Vec<String> {
    let programs = ["make", "cc1", "git", "rustc", "dpkg", "bash"];
    let actions = [
        ("creation", "creation"),
        ("rename", "change"),
        ("deletion", "deletion"),
    ];
    (0..DOCUMENTS)
        .map(|index| {
            let program = programs[index % programs.len()];
            let (action, kind) = actions[index % 7 % actions.len()];
            let user = format!("user{}", index % 11);
            let name = format!("object-{}.{}", index * 7919 % 100_000, ["o", "log", "rs"][index % 3]);
            let id = format!("{:032x}", (index as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            json!({
                "@timestamp": format!("2026-11-03T10:{:02}:{:02}.123456Z", index % 60, index % 59),
                "agent": {"id": id, "type": "endpoint", "version": "9.4.0"},
                "data_stream": {"dataset": "endpoint.events.file", "namespace": "default", "type": "logs"},
                "ecs": {"version": "8.10.0"},
                "elastic": {"agent": {"id": id}},
                "event": {"action": action, "category": ["file"], "created": "2026-11-03T10:11:12.123456Z",
                    "dataset": "endpoint.events.file", "id": format!("NfUo8a6XzXhVQ6aE+{index}"),
                    "ingested": "2026-11-03T10:11:20Z", "kind": "event", "module": "endpoint",
                    "sequence": index, "type": [kind]},
                "file": {"Ext": {"original": {"path": "/tmp/x", "name": "x"}}, "extension": "log", "name": name,
                    "path": format!("/home/{user}/projects/thing/build/{name}"), "size": index},
                "group": {"Ext": {"real": {"id": 1000, "name": user}}, "id": 1000, "name": user},
                "host": {"architecture": "x86_64", "hostname": "web-17", "id": id,
                    "ip": ["127.0.0.1", "::1", "10.1.2.3", "fe80::1"], "mac": ["00-11-22-33-44-55"],
                    "name": "web-17.example.net",
                    "os": {"Ext": {"variant": "Debian"}, "family": "debian", "full": "Debian 12.8",
                        "kernel": "6.1.0-28-amd64 #1 SMP", "name": "Linux", "platform": "debian",
                        "type": "linux", "version": "12.8"}},
                "message": "Endpoint file event",
                "process": {"Ext": {"ancestry": [id, id]},
                    "entity_id": id, "executable": format!("/usr/bin/{program}"), "name": program,
                    "parent": {"entity_id": id}, "pid": 4711 + index, "thread": {"id": 4711 + index}},
                "user": {"Ext": {"real": {"id": 1000, "name": user}}, "id": 1000, "name": user}
            })
            .to_string()
        })
        .collect()
}
