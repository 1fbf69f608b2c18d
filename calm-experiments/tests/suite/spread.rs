//! Runs that several processes share, that are cut off, and that are decoded piece by piece.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use calm_files::Claim;

use crate::binary::Folder;

/// The tables of a run that nothing has disturbed.
fn undisturbed(folder: &Folder) -> String {
    folder.succeed(&["--threads", "2", "--out", "undisturbed"]);
    folder.tables("undisturbed")
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn leftovers(folder: &Folder, out: &str) -> String {
    let names = ["(", "-name", "*.partial", "-o", "-name", "*.claim", ")"];
    let found = Command::new("find").arg(folder.path(out)).args(names).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

/// Starts a run that heeds Ctrl-C, even if the tests are a shell's background job, which does not.
fn start(folder: &Folder, out: &str) -> Child {
    let run = folder.command(&["--threads", "1", "--out", out]);
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(run.get_program()).args(run.get_args());
    command.current_dir(folder.path("")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a unit of the oracle, which comes in the middle, is there, or the process has ended.
fn wait_for_the_oracle(folder: &Folder, out: &str, child: &mut Child) {
    let file = folder.path(out).join("generations/test/oracle/shard-0000.jsonl");
    while !file.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn units_may_be_decoded_by_anyone_in_any_order_and_twice() {
    let folder = Folder::new();
    let tables = undisturbed(&folder);
    let out = ["--out", "pieces"];
    let all = folder.succeed(&[&["units"], &out[..]].concat());
    let units = lines(&all);
    assert!(units.contains(&"test/full/0000") && units.contains(&"calibration/full/0001"), "{all}");
    assert_eq!(folder.succeed(&[&["units"], &out[..], &["--missing"]].concat()), all);

    let decode = |ids: &[&str]| folder.succeed(&[&["run"], &out[..], &["--unit"], ids].concat());
    let (first, second) = units.split_at(units.len() / 2);
    decode(&second.iter().rev().copied().collect::<Vec<_>>());
    let missing = folder.succeed(&[&["units"], &out[..], &["--missing"]].concat());
    assert_eq!(lines(&missing), first);
    // What is there already is not decoded again.
    let file =
        folder.path("pieces/generations").join(format!("{}.jsonl", second[0].replace("/0", "/shard-0")));
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    decode(&second[..1]);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);

    let error = folder.fail(&["collect", "--out", "pieces"]);
    assert!(error.contains("cannot read pieces/generations/"), "{error}");
    assert!(
        folder
            .fail(&["run", "--out", "pieces", "--unit", "test/full/7777"])
            .contains("no unit test/full/7777")
    );
    folder.succeed(&["run", "--out", "pieces"]);
    folder.succeed(&["collect", "--out", "pieces"]);
    assert_eq!(folder.tables("pieces"), tables);
    assert_eq!(folder.succeed(&["units", "--out", "pieces", "--missing"]), "");
}

/// A launcher's list may be empty, and some hand a list on as one word.
#[test]
fn a_list_of_units_may_be_empty_or_one_word() {
    let folder = Folder::new();
    let missing = || folder.succeed(&["units", "--out", "lists", "--missing"]);
    let all = missing();
    let run = |ids: &[&str]| folder.succeed(&[&["run", "--out", "lists", "--unit"], ids].concat());
    for nothing in [&[][..], &[""], &["", " \n"]] {
        run(nothing);
        assert_eq!(missing(), all, "{nothing:?}");
    }
    let units = lines(&all);
    let (first, rest) = units.split_at(4);
    run(&[&first[..2].join(" "), &(first[2..].join("\n") + "\n")]);
    assert_eq!(lines(&missing()), rest);
}

/// Where the test split is decoded at certified thresholds alone, its units are known after those of the
/// calibration split.
#[test]
fn units_that_depend_on_others_come_later() {
    let folder = Folder::new();
    let only = ["--out", "only", "--set", "sweep.certified_only=true"];
    let missing = || folder.succeed(&[&["units"], &only[..], &["--missing"]].concat());
    let run = |ids: &str| {
        folder.succeed(&[&["run"], &only[..], &["--unit"], &lines(ids)[..]].concat());
    };
    let calibration = missing();
    assert!(lines(&calibration).iter().all(|id| id.starts_with("calibration/")), "{calibration}");
    run(&calibration);
    let test = missing();
    assert!(!test.is_empty() && lines(&test).iter().all(|id| id.starts_with("test/")), "{test}");
    run(&test);
    folder.succeed(&[&["collect"], &only[..]].concat());
    folder.succeed(&["--out", "whole", "--set", "sweep.certified_only=true"]);
    assert_eq!(folder.tables("only"), folder.tables("whole"));
}

#[cfg(unix)]
#[test]
fn three_processes_share_a_run_and_one_is_killed() {
    let folder = Folder::new();
    let tables = undisturbed(&folder);
    let mut processes = [(); 3].map(|()| start(&folder, "shared"));
    wait_for_the_oracle(&folder, "shared", &mut processes[0]);
    processes[0].kill().unwrap();
    let outputs = processes.map(|process| process.wait_with_output().unwrap());
    for output in &outputs[1..] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(folder.tables("shared"), tables);
    // Of what the killed one has begun, no unit is missing, and what is left of it is in nobody's way.
    folder.succeed(&["collect", "--out", "shared"]);
    assert_eq!(folder.tables("shared"), tables);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_after_the_unit_and_the_second_one_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new();
    let tables = undisturbed(&folder);
    for times in [1, 2] {
        let out = format!("interrupted-{times}");
        // However fast the machine is, the run does not end before the signal comes.
        let held = Claim::take(&folder.path(&out).join("generations/test/oracle/.shard-0001.claim")).unwrap();
        let mut child = start(&folder, &out);
        wait_for_the_oracle(&folder, &out, &mut child);
        let interrupt = |child: &Child| {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        };
        interrupt(&child);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ctrl-C again ends at once\n") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        if times == 2 {
            interrupt(&child);
            child.wait().unwrap();
        }
        drop(held);
        stderr.read_to_string(&mut said).unwrap();
        // A shell calls that 130.
        assert_eq!(child.wait().unwrap().signal(), Some(2), "{said}");
        let advice =
            "interrupted by SIGINT; what was decoded stays, and the same command goes on from there\n";
        assert!(said.ends_with(advice), "{said}");
        assert_eq!(leftovers(&folder, &out), "");
        assert!(!folder.path(&out).join("sweep.csv").exists());
        folder.succeed(&["--out", &out]);
        assert_eq!(folder.tables(&out), tables);
    }
}

/// A limit on the length of files is what a full disk is to a program: what it writes fails in the middle.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_leaves_whole_units_and_the_next_run_goes_on() {
    let folder = Folder::new();
    let tables = undisturbed(&folder);
    // In 512 bytes each: the first limit is below the length of a unit, the second one only below the page's.
    for (limit, missing) in [(3, "generations/test/full/shard-0000.jsonl"), (60, "report.html")] {
        let out = format!("full-{limit}");
        let run = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" trial.toml --threads 1 --out {out}");
        let mut limited = Command::new("sh");
        limited.args(["-c", &run]).arg(folder.command(&[]).get_program());
        let output = limited.current_dir(folder.path("")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot write {out}/{missing}: File too large")), "{said}");
        assert_eq!(leftovers(&folder, &out), "");

        folder.succeed(&["--out", &out]);
        assert_eq!(folder.tables(&out), tables);
    }
}

#[test]
fn a_damaged_unit_is_told_and_alone_decoded_again() {
    let folder = Folder::new();
    let tables = undisturbed(&folder);
    let unit = folder.path("undisturbed/generations/calibration/full/shard-0001.jsonl");
    let bytes = fs::read(&unit).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for damaged in [&bytes[..bytes.len() / 2], &flipped, b"", b"\0\0\0\0"] {
        fs::write(&unit, damaged).unwrap();
        let output = folder.command(&["--out", "undisturbed"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let told = "note: decoded again: undisturbed/generations/calibration/full/shard-0001.jsonl";
        assert_eq!(said.matches("note: decoded again").count(), 1, "{said}");
        assert!(said.contains(told), "{said}");
        assert_eq!(folder.tables("undisturbed"), tables);
    }
}

#[test]
fn a_dry_run_decodes_no_unit_and_says_what_there_is() {
    let folder = Folder::new();
    let text = folder.succeed(&["--dry-run", "--threads", "2"]);
    assert!(!folder.path("runs").exists(), "{text}");
    let units = lines(&folder.succeed(&["units"])).len();
    let expected = format!("{units} units, 0 done, {units} to decode\n");
    assert!(text.contains(&expected) && text.contains("minutes on 2 workers"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("test         oracle ")), "{text}");
    folder.succeed(&[]);
    let text = folder.succeed(&["--dry-run"]);
    assert!(text.ends_with(&format!("{units} units, {units} done, 0 to decode\n")), "{text}");
}

#[test]
fn a_log_for_programs_is_json_in_every_line() {
    let folder = Folder::new();
    let output = folder.command(&["--log", "json", "--set", "data.test_examples=1000"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_level = |level: &str| lines.iter().find(|line| line["level"] == level).unwrap();
    assert_eq!(of_level("info")["message"], "model: 4 decoder layers, cpu f32 on 2 threads");
    let warning = of_level("warning")["message"].as_str().unwrap();
    assert!(warning.starts_with("test.jsonl: 1000 examples are asked for"), "{said}");
    let progress = of_level("progress");
    assert_eq!((&progress["doing"], &progress["done"]), (&"decoding".into(), &progress["total"]));
    let output = folder.command(&["collect", "--log", "json", "--out", "absent"]).output().unwrap();
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["level"], "error");
}
