//! nginx: as a plain reverse proxy, and with Lua that looks keys up in a shared dictionary and
//! counts in another. No log, kept connections, as many workers as there are processors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::program::Program;
use crate::stock::keys::Keys;

/// Forwards everything to `upstream`, with `proxy_buffering` or without; checks nothing and counts
/// nothing.
pub fn before(upstream: SocketAddr, buffering: bool) -> Result<Program> {
    let buffering = if buffering { "on" } else { "off" };
    let inner = move |_: &Path, address: SocketAddr| {
        format!(
            "upstream bench {{ server {upstream}; keepalive 128;\n\
             keepalive_requests 1000000000; }}\n\
             map $http_upgrade $hop {{ default upgrade; '' ''; }}\n\
             server {{ listen {address} backlog=4096 reuseport; location / {{\n\
             proxy_pass http://bench; proxy_buffering {buffering}; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop; }} }}\n"
        )
    };
    start("", inner)
}

/// Answers 200 for known keys, and counts each. It knows them by their text: nothing is hashed.
pub fn with_lua(keys: &Keys) -> Result<Program> {
    let modules = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"].map(PathBuf::from);
    let named = |name: &str| modules.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    let lua = named("ngx_http_lua_module.so").context("not installed: nginx's Lua module")?;
    let kit = named("ndk_http_module.so").context("not installed: nginx's development kit")?;
    let load = format!("load_module {};\nload_module {};\n", kit.display(), lua.display());
    let lines: Vec<u8> = keys.iter().flat_map(|key| [key.as_slice(), b"\n"].concat()).collect();
    start(&load, move |dir, address| {
        let file = dir.join("keys");
        std::fs::write(&file, &lines).expect("its own directory");
        format!(
            "lua_package_path '/usr/share/lua/5.1/?.lua;;';\n\
             lua_shared_dict keys 128m;\nlua_shared_dict counts 128m;\n\
             init_by_lua_block {{\n\
               local keys, number = ngx.shared.keys, 0\n\
               for key in io.lines('{}') do\n\
                 keys:set(key, 'client-' .. number % 100)\n\
                 number = number + 1\n\
               end\n\
             }}\n\
             server {{ listen {address} backlog=4096 reuseport; location = /authz/forward-auth {{\n\
               content_by_lua_block {{\n\
                 local header = ngx.var.http_authorization\n\
                 local key = header and header:sub(8)\n\
                 local client = key and ngx.shared.keys:get(key)\n\
                 if not client then return ngx.exit(401) end\n\
                 ngx.shared.counts:incr(key, 1, 0)\n\
                 ngx.header.content_length = 0\n\
                 ngx.header['X-Gatepost-Client'] = client\n\
                 return ngx.exit(200)\n\
               }}\n\
             }} }}\n",
            file.display()
        )
    })
}

fn start(load: &str, inner: impl FnOnce(&Path, SocketAddr) -> String) -> Result<Program> {
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let write = |dir: &Path, address: SocketAddr| {
        let (at, inner) = (dir.display(), inner(dir, address));
        let config = format!(
            "{load}{user}daemon off;\nworker_processes auto;\npid {at}/pid;\n\
             error_log stderr error;\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {at}/body;\n\
             proxy_temp_path {at}/proxy;\nfastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n\
             keepalive_requests 1000000000;\n{inner}}}\n"
        );
        Ok(std::fs::write(dir.join("nginx.conf"), config)?)
    };
    Program::start("nginx", write, |dir, command| {
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    })
}
