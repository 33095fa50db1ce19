//! Has the kernel had to kill somebody for memory?

/// How many processes the kernel has killed for memory since the host was booted (`oom_kill` in `/proc/vmstat`, since Linux 4.13), those
/// that had a limit of their own among them; `None` when that cannot be told.
pub fn killed_for_memory() -> Option<u64> {
    counted(&std::fs::read_to_string("/proc/vmstat").ok()?)
}

fn counted(table: &str) -> Option<u64> {
    table.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        assert_eq!(counted("nr_free_pages 1\noom_kill 7\noom_kill_disable 0\n"), Some(7));
        assert_eq!(counted("nr_free_pages 1\n"), None);
    }
}
