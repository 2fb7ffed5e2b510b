//! The unit that brings a site's clusters back after a reboot: offered, never installed by itself.

use std::path::Path;

/// `ekso systemd-unit | sudo tee /etc/systemd/system/ekso.service && sudo systemctl enable --now ekso`
pub fn unit(data_dir: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/ekso".into());
    format!(
        "[Unit]
Description=Ekso clusters in {dir}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={program} server --daemon --data-dir {dir}
Restart=on-failure
RestartSec=1
# Machines outlive the daemon: a restart of it must not stop them.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
",
        dir = data_dir.display(),
        program = program.display(),
    )
}
