use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A directory with programs in it.
struct Programs(PathBuf);

impl Programs {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drawbridge-command-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A script for `sh`, which is the program: a file that was just written may be busy. It finds its directory in `$HERE`, and leaves a line in `runs` whenever it runs.
    fn script(&self, body: &str) -> String {
        let path = self.0.join("program");
        let here = self.0.display();
        fs::write(&path, format!("HERE='{here}'\necho run >> \"$HERE/runs\"\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, body: &str) -> BearerCommand {
        BearerCommand::new(vec!["sh".into(), self.script(body)]).unwrap()
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.0.join("runs")).map_or(0, |text| text.lines().count())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn expose(command: &BearerCommand) -> Result<String, CommandError> {
    command.token().await.map(|token| token.expose().to_owned())
}

#[tokio::test]
async fn one_run_serves_all_and_the_token_is_kept() {
    let programs = Programs::new("kept");
    let command = programs.command("sleep 0.1; echo token-$$");
    let (a, b, c) = tokio::join!(expose(&command), expose(&command), expose(&command));
    let token = a.unwrap();
    assert_eq!((b.unwrap(), c.unwrap()), (token.clone(), token.clone()));
    assert_eq!(expose(&command.clone()).await.unwrap(), token);
    assert_eq!(programs.runs(), 1);
}

#[tokio::test]
async fn arguments_arrive_as_they_are_with_the_environment_and_no_input() {
    let programs = Programs::new("arguments");
    let program = programs.script("cat > \"$HERE/input\"; printf '%s\\n' \"$#\" \"$@\" > \"$HERE/arguments\"; echo \"$PATH\" > \"$HERE/path\"; echo t");
    let words = words::split(&format!("sh '{program}' a 'b  c' '$(id)' \"*\" '' --x='|'")).unwrap();
    let command = BearerCommand::new(words).unwrap();
    assert_eq!(expose(&command).await.unwrap(), "t");
    let read = |name: &str| fs::read_to_string(programs.0.join(name)).unwrap();
    assert_eq!(read("arguments"), "6\na\nb  c\n$(id)\n*\n\n--x=|\n");
    assert_eq!(read("path").trim_end(), std::env::var("PATH").unwrap());
    assert_eq!(read("input"), "");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_all() {
    let programs = Programs::new("refused");
    let command = programs.command("echo token-$$");
    let first = command.token().await.unwrap();
    assert!(command.refused(&first));
    assert!(command.refused(&first), "the others that got a 401 with it");
    let (second, third) = tokio::join!(command.token(), command.token());
    let second = second.unwrap();
    assert_ne!(first.expose(), second.expose());
    assert_eq!(second.expose(), third.unwrap().expose());
    assert!(command.refused(&first), "late: there is a newer one");
    assert_eq!(programs.runs(), 2);
    assert!(!command.refused(&second), "that is the server's answer");
    assert_eq!(command.token().await.unwrap().expose(), second.expose());
    assert_eq!(programs.runs(), 2);
}

#[tokio::test]
async fn a_program_that_gives_the_refused_token_again_is_not_run_without_end() {
    let programs = Programs::new("same");
    let command = programs.command("echo same");
    for _ in 0..20 {
        let token = command.token().await.unwrap();
        command.refused(&token);
    }
    assert_eq!(programs.runs(), 2);
}

#[tokio::test]
async fn an_error_serves_all_who_wait_and_the_next_tries_again() {
    let programs = Programs::new("error");
    let command = programs.command("sleep 0.1; [ -e \"$HERE/works\" ] && echo good; [ -e \"$HERE/works\" ]");
    let (a, b, c) = tokio::join!(command.token(), command.token(), command.token());
    let error = a.unwrap_err();
    assert!(matches!(&error, CommandError::Failed { status, .. } if status == "exit status: 1"), "{error}");
    assert_eq!((b.unwrap_err(), c.unwrap_err()), (error.clone(), error));
    assert_eq!(programs.runs(), 1);
    fs::write(programs.0.join("works"), "").unwrap();
    assert_eq!(expose(&command).await.unwrap(), "good");
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_secrets() {
    let programs = Programs::new("wrong");
    for (body, said) in [
        ("echo s3cr3t >&2; echo s3cr3t; exit 3", "failed (exit status: 3)"),
        ("kill -9 $$", "failed (signal: 9"),
        ("echo Bearer s3cr3t", "printed more than the token alone"),
        ("echo s3cr3t >&2", "printed nothing"),
        ("echo '{\"error\":\"s3cr3t\"}'", "printed JSON without a token in it"),
        ("head -c 65537 /dev/zero | tr '\\0' s; sleep 9", "printed more than 65536 bytes and was ended"),
        ("head -c 65536 /dev/zero | tr '\\0' s", "printed a token of more than 16384 bytes"),
    ] {
        let program = programs.script(body);
        let command = BearerCommand::new(vec!["sh".into(), program, "s3cr3t".into()]).unwrap();
        let error = command.token().await.unwrap_err();
        let shown = format!("{error} {} {error:?} {command:?}", error.hint());
        assert!(error.to_string().starts_with('/') && shown.contains(said), "{body}: {shown}");
        assert!(!shown.contains("s3cr3t") && !error.hint().is_empty(), "{shown}");
    }
    let no_program = programs.script("");
    fs::write(&no_program, "#!/no/such/interpreter\n").unwrap();
    let error = BearerCommand::new(vec![no_program]).unwrap().token().await.unwrap_err();
    assert!(matches!(error, CommandError::NotStarted { .. }), "{error}");
}

#[test]
fn programs_are_looked_for_at_the_start() {
    let programs = Programs::new("found");
    let batch = programs.0.join("gcloud.CMD");
    fs::copy(programs.script("echo t"), &batch).unwrap();
    let error = |word: &str| BearerCommand::new(vec![word.to_owned()]).unwrap_err();
    assert!(matches!(error(batch.to_str().unwrap()), CommandError::BatchFile { .. }));
    for word in ["no-such-program-anywhere", "./Cargo.toml", "bin/sh", "~/vault", "", "/etc/passwd"] {
        assert_eq!(error(word), CommandError::NotFound { program: word.into() }, "{word}");
    }
    assert!(BearerCommand::new(vec!["sh".into()]).is_ok());
    assert!(BearerCommand::new(Vec::new()).is_err());
}

#[tokio::test]
async fn a_program_that_does_not_end_is_ended_with_what_it_started() {
    let programs = Programs::new("slow");
    let program = programs.script("sleep 300 & echo $! > \"$HERE/child\"; echo half; wait");
    let command = BearerCommand::with_limit(vec!["sh".into(), program], Duration::from_millis(700)).unwrap();
    let error = command.token().await.unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    is_gone(&programs).await;
}

#[tokio::test]
async fn nothing_is_left_when_the_bridge_ends() {
    let programs = Programs::new("ends");
    let command = programs.command("sleep 300 & echo $! > \"$HERE/child\"; wait");
    let waiting = tokio::spawn({
        let command = command.clone();
        async move { command.token().await }
    });
    while !programs.0.join("child").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiting.abort();
    let _ = waiting.await;
    drop(command);
    is_gone(&programs).await;
}

async fn is_gone(programs: &Programs) {
    let child: i32 = fs::read_to_string(programs.0.join("child")).unwrap().trim().parse().unwrap();
    let child = rustix::process::Pid::from_raw(child).unwrap();
    let start = Instant::now();
    // A zombie of another parent counts as gone.
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero())).unwrap_or_default();
        rustix::process::test_kill_process(child).is_ok() && !stat.contains(") Z ")
    };
    while runs() {
        assert!(start.elapsed() < Duration::from_secs(5), "what the program started still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A helper in the background may keep the pipe open; the token is there all the same.
#[tokio::test]
async fn a_helper_in_the_background_does_not_hold_up() {
    let programs = Programs::new("background");
    let command = programs.command("sleep 300 > /dev/null & echo token");
    assert_eq!(expose(&command).await.unwrap(), "token");
    let command = programs.command("sleep 3 & echo token");
    let start = Instant::now();
    assert_eq!(expose(&command).await.unwrap(), "token");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_serves_the_next() {
    let programs = Programs::new("cancelled");
    let command = programs.command("sleep 0.3; echo token");
    let cut = tokio::time::timeout(Duration::from_millis(50), command.token()).await;
    assert!(cut.is_err());
    assert_eq!(expose(&command).await.unwrap(), "token");
    assert_eq!(programs.runs(), 1);
}

#[test]
fn the_margin_is_scaled_to_the_life() {
    const NOW: u64 = 2_000_000_000;
    let cached = |expires_at| Cached::new(Bearer { token: Secret::new("t"), expires_at }, NOW, false);
    let until = |lifetime: u64| cached(Some(NOW + lifetime)).fresh_until.unwrap() - NOW;
    assert_eq!((until(3600), until(600), until(100), until(5)), (3540, 540, 90, 5));
    assert_eq!(cached(None).fresh_until, None);
    assert!(cached(Some(NOW + 100)).is_fresh(NOW + 200), "it has served for less than five seconds");
    let mut old = cached(Some(NOW + 100));
    old.got_at = Instant::now().checked_sub(LEAST_USE).unwrap();
    assert!(old.is_fresh(NOW + 89) && !old.is_fresh(NOW + 90));
}
