//! The cases: what a script sees, what it leaves, how it ends.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use stacker::action::Network;

use crate::site::{Site, eventually, owner, running, sh};

pub const ALL: &[(&str, fn())] = &[
    ("exit_codes_and_signals", exit_codes_and_signals),
    ("upper_holds_only_what_the_script_wrote", upper_holds_only_what_the_script_wrote),
    ("scratch_without_any_layer", scratch_without_any_layer),
    ("environment_is_exact", environment_is_exact),
    ("process_state_is_fixed", process_state_is_fixed),
    ("no_descriptor_is_inherited", no_descriptor_is_inherited),
    ("devices_work", devices_work),
    ("network_none_has_loopback_only", network_none_has_loopback_only),
    ("network_host_has_the_hosts_names", network_host_has_the_hosts_names),
    ("imports_are_read_only_and_gone_afterwards", imports_are_read_only_and_gone_afterwards),
    ("what_is_written_to_stacker_is_dropped", what_is_written_to_stacker_is_dropped),
    ("left_over_server_is_ended", left_over_server_is_ended),
    ("stubborn_server_is_killed", stubborn_server_is_killed),
    ("sigterm_ends_a_stubborn_script", sigterm_ends_a_stubborn_script),
    ("sigterm_lets_a_script_clean_up", sigterm_lets_a_script_clean_up),
    ("killed_worker_takes_the_script_along", killed_worker_takes_the_script_along),
    ("kernel_files_are_masked", kernel_files_are_masked),
    ("masks_can_not_be_removed", masks_can_not_be_removed),
    ("init_is_out_of_reach", init_is_out_of_reach),
    ("missing_interpreter_is_named", missing_interpreter_is_named),
    ("owners_modes_and_nodes", owners_modes_and_nodes),
    ("file_capabilities", file_capabilities),
    ("file_at_a_mount_point_is_the_users_fault", file_at_a_mount_point_is_the_users_fault),
    ("links_at_mount_points_are_followed", links_at_mount_points_are_followed),
    ("mount_points_that_the_base_removed", mount_points_that_the_base_removed),
    ("many_lowers_fit", many_lowers_fit),
    ("title", title),
];

fn exit_codes_and_signals() {
    for (script, code) in [("exit 7", 7), ("false", 1), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("true", 0)] {
        let ran = Site::new().run(script);
        assert_eq!(ran.code(), code, "{script}: {}", ran.log);
    }
}

fn upper_holds_only_what_the_script_wrote() {
    let mut site = Site::new();
    let ran = site.run("ls -d /proc/1 /dev/null /sys/kernel /stacker/run /etc/hosts");
    assert_eq!(ran.code(), 0, "{}", ran.log);
    assert_eq!(site.upper_names(), "");
    assert_eq!(site.upper("").metadata().unwrap().mtime(), 1000, "the root's time");

    let mut site = Site::new();
    site.run("mkdir -p /var/lib; echo x > /etc/passwd; echo y > /var/lib/y; echo z > /z; rm /bin/wc").printed();
    assert_eq!(site.upper_names(), "bin bin/wc etc etc/passwd var var/lib var/lib/y z");
}

fn scratch_without_any_layer() {
    let mut site = Site::new();
    site.job.lowers.clear();
    site.job.mounts = vec![("/stacker/imports/busybox".into(), "imports/a/t".into())];
    fs::create_dir(site.path("imports/a")).unwrap();
    fs::copy("/bin/busybox", site.path("imports/a/t")).unwrap();
    let ran = site.run("#!/stacker/imports/busybox sh\n/stacker/imports/busybox mkdir /new");
    assert_eq!(ran.code(), 0, "{}", ran.log);
    assert_eq!(site.upper_names(), "new");
}

fn environment_is_exact() {
    let mut site = Site::new();
    site.job.environment.insert("GREETING".into(), "a = 'b'\nc".into());
    // The interpreter adds its own (PWD, SHLVL): look at what the kernel was given.
    let ran = site.run("cat /proc/$$/environ | tr '\\0' '|'");
    assert_eq!(ran.printed(), "GREETING=a = 'b'\nc|PATH=/bin|");
}

fn process_state_is_fixed() {
    let script = "hostname; umask; pwd; ulimit -Sn; ulimit -c; id -u; id -g; id -G; readlink /proc/$$/fd/0
        grep -E '^(SigBlk|SigIgn|SigCgt|NoNewPrivs|CapEff)' /proc/self/status
        read line || echo no input
        cut -d ' ' -f 6 /proc/$$/stat; echo $$";
    let printed = Site::new().run(script).printed().to_owned();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..9], ["stacker", "0022", "/", "1024", "0", "0", "0", "0", "/dev/null"], "{printed}");
    let status: Vec<&str> = lines[9..14].iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    let none = "0000000000000000";
    assert_eq!([status[0], status[1], status[2], status[4]], [none, none, none, "0"], "{printed}");
    assert_eq!(status[3], "000001ffffffffff", "{printed}");
    assert_eq!(lines[14], "no input");
    assert_eq!(lines[15], lines[16], "the script leads its session");
}

fn no_descriptor_is_inherited() {
    // 3 is the directory that `ls` reads.
    let printed = Site::new().run("#!/bin/ls /proc/self/fd").log;
    assert!(printed.ends_with("0\n1\n2\n3\n"), "{printed}");
    let printed = Site::new().run("readlink /proc/$$/fd/1; readlink /proc/$$/fd/2").printed().to_owned();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], lines[1]);
}

fn devices_work() {
    let script = "echo gone > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c
        echo x > /dev/shm/x; cat /dev/shm/x; test -c /dev/ptmx; test -d /dev/pts; echo y > /dev/stdout
        echo x 2>/dev/null > /dev/full || echo full
        ls /dev | xargs";
    let printed = Site::new().run(script).printed().to_owned();
    let words: Vec<&str> = printed.split_whitespace().collect();
    let devices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(words.join(" "), format!("4 4 x y full {devices}"));
    // The script can open a terminal, and sees nobody else's.
    assert_eq!(Site::new().run("exec 5<>/dev/ptmx; ls /dev/pts | xargs").printed(), "0 ptmx");
}

fn network_none_has_loopback_only() {
    let mut site = Site::new();
    site.job.network = Network::None;
    let script = "ls /sys/class/net; ip link show lo | head -n 1; ip route
        ping -c 1 -W 1 127.0.0.1 > /dev/null && echo pong
        httpd -p 127.0.0.1:80 -h /bin; wget -q -O - http://localhost/busybox | cmp - /bin/busybox && echo served
        test -e /etc/resolv.conf && echo servers
        touch /sys/x 2>/dev/null || echo read-only";
    let ran = site.run(script);
    let printed = ran.printed();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "lo", "{printed}");
    assert!(lines[1].contains("LOOPBACK,UP"), "{printed}");
    assert_eq!(lines[2..], ["pong", "served", "read-only"], "{printed}");
    assert_eq!(site.upper_names(), "");
}

fn network_host_has_the_hosts_names() {
    let mut site = Site::new();
    let ran = site.run("cat /etc/resolv.conf; echo x 2>/dev/null > /etc/resolv.conf || echo read-only");
    let servers = fs::read_to_string("/etc/resolv.conf").unwrap();
    assert_eq!(ran.printed(), format!("{servers}read-only"));
    let hosts = site_hosts();
    for name in ["127.0.0.1 localhost", "::1 localhost", "127.0.0.1 stacker"] {
        assert!(hosts.contains(name), "{hosts}");
    }
    let interfaces = Site::new().run("ls /sys/class/net | xargs").printed().to_owned();
    assert_eq!(interfaces, sh("ls /sys/class/net | xargs"));
    let ran = Site::new().run(
        "touch /sys/kernel/x; for d in $(cut -d ' ' -f 5 /proc/self/mountinfo | grep ^/sys); do
        touch $d/x 2>/dev/null && echo writable $d; done; true",
    );
    assert!(!ran.log.contains("writable"), "{}", ran.log);
}

fn site_hosts() -> String {
    Site::new().run("cat /etc/hosts").printed().replace('\t', " ")
}

fn imports_are_read_only_and_gone_afterwards() {
    let mut site = Site::new();
    fs::create_dir_all(site.path("imports/dir/t/sub")).unwrap();
    fs::write(site.path("imports/dir/t/sub/file"), "inner").unwrap();
    fs::create_dir(site.path("imports/file")).unwrap();
    fs::write(site.path("imports/file/t"), "outer").unwrap();
    site.job.mounts = vec![
        ("/stacker/imports/tree".into(), "imports/dir/t".into()),
        ("/stacker/imports/text".into(), "imports/file/t".into()),
        ("/opt/elsewhere".into(), "imports/dir/t".into()),
    ];
    let script = "cat /stacker/imports/tree/sub/file /stacker/imports/text /opt/elsewhere/sub/file
        touch /stacker/imports/tree/x 2>/dev/null || echo ' read-only'
        echo x 2>/dev/null > /stacker/imports/text || echo read-only
        rm -r /opt/elsewhere/sub 2>/dev/null || echo read-only
        mount -o remount,rw,bind /opt/elsewhere 2>/dev/null || echo locked";
    assert_eq!(site.run(script).printed(), "innerouterinner read-only\nread-only\nread-only\nlocked");
    assert_eq!(site.upper_names(), "");
}

fn what_is_written_to_stacker_is_dropped() {
    let mut site = Site::new();
    site.run("echo x > /stacker/x; mkdir /stacker/imports; cp -r /stacker /copy").printed();
    assert_eq!(site.upper_names(), "copy copy/imports copy/run copy/x");
    assert_eq!(fs::read_to_string(site.path("drafts/one/s/x")).unwrap(), "x\n", "labels are read there");
}

fn left_over_server_is_ended() {
    let mut site = Site::new();
    let start = Instant::now();
    let script = "sleep 4321 & (setsid sh -c 'trap \"echo bye > /bye; exit\" TERM; echo x > /up; while :; do sleep 0.01; done' &)
        while ! test -e /up; do :; done; exit 3";
    assert_eq!(site.run(script).code(), 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(!running("sleep 4321"));
    assert_eq!(site.upper_names(), "bye up", "it had time to clean up");
}

fn stubborn_server_is_killed() {
    let mut site = Site::new();
    let start = Instant::now();
    site.run("(trap '' TERM; sleep 4322) & sleep 0.1").printed();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    assert!(!running("sleep 4322"));
}

fn sigterm_ends_a_stubborn_script() {
    let worker = Site::new();
    let mut site = worker;
    let running_worker = site.start("trap '' TERM; echo up; while :; do sleep 4323 & wait; done");
    running_worker.wait_for("up");
    let start = Instant::now();
    kill(running_worker.id(), Signal::SIGTERM).unwrap();
    let ran = running_worker.wait();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!((ran.failure().errno, ran.failure().users), (Some(4), false));
    assert!(!running("sleep 4323"));
}

fn sigterm_lets_a_script_clean_up() {
    let mut site = Site::new();
    let worker = site.start("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    worker.wait_for("up");
    kill(worker.id(), Signal::SIGTERM).unwrap();
    let ran = worker.wait();
    assert!(ran.log.contains("bye"), "{}", ran.log);
    // It said success, but nobody may take its files for the result.
    assert_eq!(ran.failure().errno, Some(4));
}

fn killed_worker_takes_the_script_along() {
    let mut site = Site::new();
    let worker = site.start("trap '' TERM; echo up; sleep 4324");
    worker.wait_for("up");
    eventually("the script sleeps", || running("sleep 4324"));
    kill(worker.id(), Signal::SIGKILL).unwrap();
    worker.gone();
    eventually("the script ends", || !running("sleep 4324"));
}

fn kernel_files_are_masked() {
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts; do
            test ! -e $f || test -z \"$(head -c 1 $f)\" || echo $f shows
        done
        for d in /sys/firmware /proc/scsi; do test -z \"$(ls $d 2>/dev/null)\" || echo $d shows; done
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger; do (echo x 2>/dev/null > $f) && echo $f writable; done
        ls /proc | grep -c '^[0-9]*$'; mount | grep -c ' / '";
    // PID 1, the shell, `ls` and `grep`; one root.
    assert_eq!(Site::new().run(script).printed(), "4\n1");
}

fn masks_can_not_be_removed() {
    let script = "for m in /proc/kcore /proc/sys /sys/firmware /sys; do umount $m 2>/dev/null && echo $m came off; done
        mount -o remount,rw /sys 2>/dev/null && echo /sys writable
        mount -o remount,bind,rw /proc/sys 2>/dev/null && echo /proc/sys writable
        mkdir /p; mount -t proc proc /p 2>/dev/null && cat /p/sys/kernel/hostname
        rmdir /p";
    assert_eq!(Site::new().run(script).printed(), "");
}

fn init_is_out_of_reach() {
    let script = "kill -9 1; kill -TERM 1; sleep 0.1
        cat /proc/1/environ 2>/dev/null && echo environment; ls /proc/1/fd 2>/dev/null && echo descriptors
        ls /proc/1/root/ 2>/dev/null && echo root; echo still here";
    assert_eq!(Site::new().run(script).printed(), "still here");
}

fn missing_interpreter_is_named() {
    let ran = Site::new().run("#!/usr/bin/perl -w\n");
    let failure = ran.failure();
    assert_eq!(failure.message, "the base has no /usr/bin/perl");
    assert!(failure.users);

    let mut site = Site::new();
    fs::write(site.path("trees/base/bin/tool"), "no program").unwrap();
    assert_eq!(site.run("#!/bin/tool\n").failure().message, "/bin/tool in the base is not executable");
    let mut site = Site::new();
    fs::write(site.path("trees/base/bin/tool"), "no program").unwrap();
    sh(&format!("chmod 755 {}", site.path("trees/base/bin/tool").display()));
    let ran = site.run("#!/bin/tool\n");
    assert_eq!(ran.failure().message, "/bin/tool in the base is no program for this machine");
}

fn owners_modes_and_nodes() {
    let mut site = Site::new();
    let script = "echo x > /owned; chown 1000:65535 /owned; chmod 4755 /owned
        echo y > /sticky; chgrp 7 /sticky; chmod 2711 /sticky
        mkfifo /fifo
        mknod /node c 1 3 2>/dev/null || echo no node
        cp /bin/busybox /su; chmod 4755 /su
        chown 65536 /sticky 2>/dev/null || echo no such id";
    assert_eq!(site.run(script).printed(), "no node\nno such id");
    assert_eq!(site.upper_names(), "fifo owned sticky su");
    assert_eq!(owner(&site.upper("owned")), (1000, 65535));
    assert_eq!(site.upper("owned").metadata().unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(owner(&site.upper("sticky")), (0, 7));
    assert_eq!(site.upper("sticky").metadata().unwrap().mode() & 0o7777, 0o2711);

    // A setuid program works: no_new_privs is not set.
    let mut site = Site::new();
    let script = "mkdir -p /etc; echo root::0:0::/:/bin/sh > /etc/passwd; echo u::1000:1000::/:/bin/sh >> /etc/passwd
        chmod 4755 /bin/busybox; su u -c 'id -u; su root -c \"id -u\"'";
    assert_eq!(site.run(script).printed(), "1000\n0");
}

fn file_capabilities() {
    let mut site = Site::new();
    sh(&format!(
        "for f in $(command -v setcap) $(command -v getcap) $(ldd $(command -v setcap) | grep -o '/[^ ]*'); do
            cp --parents -L $f {0}; done
        mkdir -p {0}/lib64; cp -L /lib64/ld-* {0}/lib64 2>/dev/null || true",
        site.path("trees/base").display()
    ));
    site.job.environment.insert("PATH".into(), "/bin:/sbin:/usr/bin:/usr/sbin".into());
    let script = "echo x > /tool; setcap cap_net_raw+ep /tool; getcap /tool; setcap cap_chown+ep /bin/busybox; getcap /bin/busybox";
    assert_eq!(site.run(script).printed(), "/tool cap_net_raw=ep\n/bin/busybox cap_chown=ep");
    // In the namespace of its root it is an ordinary capability; seen from here it is bound to that root.
    assert!(sh(&format!("getcap -n {}", site.upper("tool").display())).contains("cap_net_raw=ep [rootid=2000000000]"));
}

fn file_at_a_mount_point_is_the_users_fault() {
    let mut site = Site::new();
    fs::write(site.path("trees/base/dev"), "").unwrap();
    let ran = site.run("true");
    assert_eq!(ran.failure().message, "cannot mount /dev: the base has a file at /dev");
    assert!(ran.failure().users);
}

fn links_at_mount_points_are_followed() {
    let mut site = Site::new();
    let base = site.path("trees/base");
    fs::create_dir_all(base.join("etc")).unwrap();
    fs::create_dir_all(base.join("run")).unwrap();
    fs::create_dir_all(base.join("var/etc")).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", base.join("etc/resolv.conf")).unwrap();
    symlink("/var/etc/hosts", base.join("etc/hosts")).unwrap();
    fs::write(base.join("var/etc/hosts"), "the base's").unwrap();
    let ran = site.run(
        "cat /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; grep -c stacker /var/etc/hosts; touch /etc/x",
    );
    let servers = fs::read_to_string("/etc/resolv.conf").unwrap();
    assert_eq!(ran.printed(), format!("{servers}{servers}1"));
    assert_eq!(site.upper_names(), "etc etc/x");
    assert_eq!(fs::read_to_string(base.join("var/etc/hosts")).unwrap(), "the base's");
}

fn mount_points_that_the_base_removed() {
    let mut site = Site::new();
    let base = site.path("trees/base");
    fs::create_dir_all(base.join("etc")).unwrap();
    fs::write(base.join("etc/hosts"), "old").unwrap();
    fs::write(base.join("etc/kept"), "kept").unwrap();
    let delta = site.path("deltas/d");
    fs::create_dir_all(delta.join("etc")).unwrap();
    sh(&format!(
        "cd {}; mknod etc/hosts c 0 0; mknod proc c 0 0; chmod 750 etc; setfattr -n user.note -v x etc; touch -d @5000 etc",
        delta.display()
    ));
    site.job.lowers.insert(0, "deltas/d".into());
    let ran =
        site.run("grep -c stacker /etc/hosts; ls -d /proc/1; ls /etc | xargs; stat -c '%a %Y' /etc; chmod 4755 /bin");
    assert_eq!(ran.printed(), "1\n/proc/1\nhosts kept resolv.conf\n750 5000");
    assert_eq!(site.upper_names(), "bin");

    // And when the directory is copied up, it looks as the base had it.
    let mut again = site;
    sh(&format!("rm -rf {}", again.path("drafts/one").display()));
    again.run("chgrp 5 /etc").printed();
    assert_eq!(again.upper_names(), "etc");
    let note =
        sh(&format!("stat -c '%a %Y' {0}; getfattr -n user.note --only-values {0}", again.upper("etc").display()));
    assert_eq!(note, "750 5000\nx");
}

fn many_lowers_fit() {
    let mut site = Site::new();
    for number in 0..64 {
        let name = format!("deltas/{number:012}");
        fs::create_dir(site.path(&name)).unwrap();
        fs::write(site.path(&name).join(format!("f{number}")), "").unwrap();
        site.job.lowers.insert(0, name.into());
    }
    assert_eq!(site.run("ls / | grep -c '^f'").printed(), "64");
}

fn title() {
    let mut site = Site::new();
    // Other tests of this machine have their sandboxes too.
    let layer = format!("a-rather-long-layer-name-{}", std::process::id());
    let title = format!("stacker: {layer}");
    site.job.layer = layer;
    let worker = site.start("xargs -0 echo < /proc/1/cmdline; cat /proc/1/comm; read x < /stacker/fifo || sleep 4325");
    eventually("ps shows the title", || running(&title));
    worker.wait_for("stacker: a-rath\n");
    assert_eq!(sh(&format!("ps -eo args | grep '^{title}$'")), title);
    kill(worker.id(), Signal::SIGTERM).unwrap();
    let ran = worker.wait();
    assert!(ran.log.starts_with(&title), "{}", ran.log);
}
