// A sandbox of its own for each file of tests, and a merchant's endpoint for its callbacks. Everything on free ports.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** The sandbox from the example binary that `cargo build --all-targets` makes. */
export class Sandbox {
  static async start(wechatpay = {}) {
    const sandbox = new Sandbox();
    sandbox.directory = mkdtempSync(join(tmpdir(), 'judge-'));
    const free = { listen: '127.0.0.1:0' };
    const config = {
      data_dir: sandbox.directory,
      control: free,
      wechatpay: { ...free, notify_second: '20ms', refund_after: '50ms', ...wechatpay },
      alipay: free,
      police_430100: free,
      police_140100: free,
    };
    const file = join(sandbox.directory, 'sandbox.json');
    writeFileSync(file, JSON.stringify(config));
    const target = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
    sandbox.process = spawn(join(target, 'debug/examples/serve'), [file], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface(sandbox.process.stdout), 'line');
    sandbox.addresses = JSON.parse(line);
    return sandbox;
  }

  async stop() {
    this.process.kill('SIGINT');
    await once(this.process, 'exit');
    rmSync(this.directory, { recursive: true });
  }

  key(...path) {
    return readFileSync(join(this.addresses.keys_dir, ...path), 'utf8');
  }

  async control(path, body) {
    const answer = await fetch(`http://${this.addresses.control}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }
}

/** Keeps what the channel reports, and takes all of it. */
export class Callbacks {
  static async start() {
    const callbacks = new Callbacks();
    callbacks.waiting = [];
    callbacks.received = [];
    callbacks.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      response.writeHead(204).end();
      const callback = { headers: request.headers, body: Buffer.concat(chunks).toString('utf8') };
      const waiter = callbacks.waiting.shift();
      if (waiter) waiter(callback);
      else callbacks.received.push(callback);
    });
    callbacks.server.listen(0, '127.0.0.1');
    await once(callbacks.server, 'listening');
    callbacks.url = `http://127.0.0.1:${callbacks.server.address().port}/notify`;
    return callbacks;
  }

  async next() {
    return this.received.shift() ?? new Promise((resolve) => this.waiting.push(resolve));
  }

  stop() {
    this.server.close();
  }
}
