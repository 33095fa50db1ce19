//! One line of `/proc/PID/stat` (proc(5)).

/// What is read of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcStat {
    /// Process id.
    pub pid: i32,
    /// Name of the program, at most 15 bytes, chosen by the process itself.
    pub comm: String,
    /// Process group.
    pub pgrp: i32,
    /// Session: the process id of its leader.
    pub session: i32,
    /// Controlling terminal; 0 for none.
    pub tty: i32,
    /// Foreground process group of that terminal; -1 for none.
    pub foreground: i32,
}

/// Parses the line. The name may itself hold spaces, parentheses and line breaks: it ends at the last `)`.
pub fn parse(line: &[u8]) -> Option<ProcStat> {
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')').filter(|close| *close > open)?;
    let pid = std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
    let comm = String::from_utf8_lossy(&line[open + 1..close]);
    let comm = comm.chars().map(|c| if c.is_control() { '?' } else { c }).take(64).collect();
    let mut fields = std::str::from_utf8(&line[close + 1..]).ok()?.split_ascii_whitespace().skip(2);
    let mut number = || fields.next()?.parse::<i32>().ok();
    Some(ProcStat { pid, comm, pgrp: number()?, session: number()?, tty: number()?, foreground: number()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_own_line_is_read() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = parse(&line).unwrap();
        assert_eq!(stat.pid.unsigned_abs(), std::process::id());
        assert_eq!(stat.pgrp, rustix::process::getpgrp().as_raw_nonzero().get());
    }

    proptest! {
        #[test]
        fn whatever_a_process_calls_itself_its_numbers_are_read(
            pid in 1i32.., name in prop::collection::vec(any::<u8>(), 0..15), ppid in 0i32.., pgrp in 0i32.., session in 0i32..,
            tty in any::<i32>(), foreground in -1i32..,
        ) {
            let mut line = format!("{pid} (").into_bytes();
            line.extend(&name);
            line.extend(format!(") S {ppid} {pgrp} {session} {tty} {foreground} 4194304 0 0\n").bytes());
            let stat = parse(&line).unwrap();
            prop_assert_eq!((stat.pid, stat.pgrp, stat.session, stat.tty, stat.foreground), (pid, pgrp, session, tty, foreground));
            prop_assert!(!stat.comm.chars().any(char::is_control));
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(line in any::<Vec<u8>>()) {
            let _ = parse(&line);
        }
    }
}
