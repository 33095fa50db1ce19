//! Where the server of a host's own `t3-serve@.service` listens. Taken over, it must go on listening there: its user's clients
//! know no other address.

use std::path::Path;

use crate::systemd::StartLine;

/// The address and the port that a unit gives its server; `None` where its start line says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listens {
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
}

/// Reads a start line. `file` looks a variable up in the environment file, which wins over `Environment=` (systemd.exec(5)).
/// What t3pin could not keep as it is, is refused with the reason.
pub fn listens(start: &StartLine, base_dir: &Path, file: &dyn Fn(&str) -> Option<String>) -> Result<Listens, String> {
    let find = |option: &str| {
        let Some(word) = last(&start.arguments, option) else { return Ok(None) };
        let unset =
            || format!("its unit takes {option} from {word}, which neither its Environment= nor its environment file sets");
        value(&word, start, file).ok_or_else(unset).map(Some)
    };
    if let Some(dir) = find("--base-dir")?.filter(|dir| Path::new(dir) != base_dir) {
        return Err(format!("its unit moves the data to {dir}; t3pin only looks after data in {}", base_dir.display()));
    }
    let port = find("--port")?.map(|port| port.parse().map_err(|_| format!("its unit says --port {port}, which is no port")));
    Ok(Listens { host: find("--host")?, port: port.transpose()? })
}

/// What `--option VALUE` or `--option=VALUE` says, the last time it is given.
fn last(arguments: &[String], option: &str) -> Option<String> {
    let next = arguments.iter().skip(1).map(Some).chain([None]);
    let said = |(word, next): (&String, Option<&String>)| match word.strip_prefix(option)? {
        "" => next.cloned(),
        rest => rest.strip_prefix('=').map(str::to_owned),
    };
    arguments.iter().zip(next).filter_map(said).last()
}

/// A word with its variable put in, when it is one (`$NAME`, `${NAME}`: systemd.service(5)).
fn value(word: &str, start: &StartLine, file: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let Some(name) = word.strip_prefix('$') else { return Some(word.to_owned()) };
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    let set = |line: &String| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    file(name).or_else(|| start.environment.iter().rev().find_map(set))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn read(file: &[(&str, &str)], environment: &[&str], line: &str) -> Result<Listens, String> {
        let arguments = line.split(' ').map(str::to_owned).collect();
        let start = StartLine { arguments, environment: environment.iter().map(|set| (*set).to_owned()).collect() };
        let get = |name: &str| file.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        listens(&start, Path::new("/home/alice/.t3"), &get)
    }

    fn at(host: Option<&str>, port: Option<u16>) -> Result<Listens, String> {
        Ok(Listens { host: host.map(str::to_owned), port })
    }

    #[test]
    fn an_address_is_found_however_the_unit_says_it() {
        assert_eq!(read(&[], &[], "t3 serve --host 100.64.0.7 --port 4100"), at(Some("100.64.0.7"), Some(4100)));
        assert_eq!(read(&[], &[], "t3 serve --host=0.0.0.0 --hostile 1 --base-dir /home/alice/.t3"), at(Some("0.0.0.0"), None));
        let file = [("T3_PORT", "4100"), ("ADDRESS", "10.0.0.1")];
        assert_eq!(read(&file, &["T3_HOST=::"], "t3 serve --host ${T3_HOST} --port $T3_PORT"), at(Some("::"), Some(4100)));
        assert_eq!(read(&file, &["ADDRESS=10.0.0.2"], "npx t3@0.0.24 serve --host ${ADDRESS}"), at(Some("10.0.0.1"), None));
        assert_eq!(read(&[], &[], "/usr/local/bin/wrapper alice"), at(None, None));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(read(&[], &[], "t3 serve --host ${T3_HOST}").unwrap_err().contains("${T3_HOST}"));
        assert!(read(&[], &[], "t3 serve --base-dir /srv/t3/alice").unwrap_err().contains("/srv/t3/alice"));
        assert!(read(&[], &[], "t3 serve --port http").is_err());
    }
}
