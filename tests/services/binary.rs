//! What each service's binary promises on its command line. Included by `tests/binary.rs` of
//! every service: there, cargo names the binary, and builds it because of the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A binary with nothing inherited from whoever runs the test, in a folder of its own.
pub struct Binary {
    path: &'static str,
    folder: PathBuf,
}

impl Binary {
    /// `folder` is below cargo's folder for the files of this package's tests.
    pub fn new(path: &'static str, test_files: &str, folder: &str) -> Self {
        let folder = Path::new(test_files).join(folder);
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { path, folder }
    }

    fn run(&self, argument: &str, environment: &[(&str, &str)]) -> Output {
        Command::new(self.path)
            .arg(argument)
            .current_dir(&self.folder)
            .env_clear()
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    pub fn check_config_prints_the_defaults_as_json(&self) {
        let output = self.run("--check-config", &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        let config: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(config["nats"]["url"], "nats://127.0.0.1:4222");
        assert_eq!(config["gateway"]["http_listen"], "127.0.0.1:8080");
        assert_eq!(config["gateway"]["admin_listen"], "127.0.0.1:9090");
        assert_eq!(config["health"]["listen"], "127.0.0.1:8081");
        assert_eq!(config["streams"]["ledger_age_days"], 30);
        assert_eq!(stderr(&output), "");
    }

    pub fn unknown_key_is_refused_by_name(&self) {
        fs::write(
            self.folder.join("kaizen-mesh.toml"),
            "[nats]\nurll = \"nats://x\"\n",
        )
        .unwrap();
        let output = self.run("--check-config", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = stderr(&output);
        assert!(
            said.contains("`urll`") && said.contains("kaizen-mesh.toml"),
            "{said}"
        );
    }

    pub fn health_check_of_nothing_fails_and_says_where_it_asked(&self) {
        // Nothing listens on port 1.
        let nowhere = ("KAIZEN_HEALTH__LISTEN", "127.0.0.1:1");
        let output = self.run("--health-check", &[nowhere]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("127.0.0.1:1"),
            "{}",
            stderr(&output)
        );
    }

    pub fn secrets_are_never_printed(&self) {
        let environment = [
            ("KAIZEN_NATS__URL", "nats://somebody:hunter2@host:4222"),
            ("KAIZEN_NATS__USER", "somebody"),
            ("KAIZEN_NATS__PASSWORD", "hunter2"),
            ("KAIZEN_NATS__TOKEN", "hunter2"),
        ];
        let output = self.run("--check-config", &environment);
        assert!(output.status.success());
        let config: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(config["nats"]["url"], "nats://host:4222");
        assert_eq!(config["nats"]["user"], "somebody");
        let said = String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
