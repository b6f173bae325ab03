//! HAProxy: as a plain reverse proxy, and with a map of keys and a stick table that counts.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::program::Program;
use crate::stock::keys::Keys;

/// Forwards everything to `upstream`; checks nothing and counts nothing.
pub fn before(upstream: SocketAddr) -> Result<Program> {
    start(move |_, address| {
        format!(
            "frontend bench\n  bind {address}\n  default_backend upstream\n\
             backend upstream\n  http-reuse always\n  server one {upstream}\n"
        )
    })
}

/// Answers 200 for known keys, and counts each. It knows them by their text: nothing is hashed.
pub fn with_map(keys: &Keys) -> Result<Program> {
    let lines = keys.iter().enumerate().map(|(number, key)| {
        let key = String::from_utf8_lossy(key);
        format!("{key} client-{}\n", number % 100)
    });
    let (lines, room) = (lines.collect::<String>(), 2 * keys.len().max(1000));
    start(move |dir, address| {
        let file = dir.join("keys");
        std::fs::write(&file, lines).expect("its own directory");
        format!(
            "frontend bench\n  bind {address}\n\
             \x20 stick-table type string len 64 size {room} expire 1h store http_req_cnt\n\
             \x20 http-request set-var(txn.key) req.hdr(authorization),word(2,' ')\n\
             \x20 http-request set-var(txn.client) var(txn.key),map_str({})\n\
             \x20 http-request return status 401 unless {{ var(txn.client) -m found }}\n\
             \x20 http-request track-sc0 var(txn.key)\n\
             \x20 http-request return status 200 hdr X-Gatepost-Client %[var(txn.client)]\n",
            file.display()
        )
    })
}

fn start(inner: impl FnOnce(&Path, SocketAddr) -> String) -> Result<Program> {
    let threads = std::thread::available_parallelism()?;
    let write = |dir: &Path, address: SocketAddr| {
        let inner = inner(dir, address);
        let config = format!(
            "global\n  nbthread {threads}\n  maxconn 8192\n\
             defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n\
             \x20 timeout connect 5s\n  timeout http-keep-alive 60s\n  timeout tunnel 60s\n{inner}"
        );
        Ok(std::fs::write(dir.join("haproxy.cfg"), config)?)
    };
    Program::start("haproxy", write, |dir, command| {
        command.arg("-db").arg("-q").arg("-f").arg(dir.join("haproxy.cfg"));
    })
}
