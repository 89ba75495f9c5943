// A sandbox of its own, on free ports, in a directory of its own; and a merchant's endpoint that takes what it is sent.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const BINARY = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'debug', 'examples', 'serve');

export class Sandbox {
  static async start(settings = {}) {
    const sandbox = new Sandbox();
    sandbox.directory = await mkdtemp(path.join(tmpdir(), 'lastmile-judge-'));
    const free = { listen: '127.0.0.1:0' };
    const systems = { control: free, police_430100: free, police_140100: free };
    for (const name of ['wechatpay', 'alipay']) systems[name] = { ...free, ...settings[name] };
    const file = path.join(sandbox.directory, 'sandbox.json');
    await writeFile(file, JSON.stringify({ data_dir: sandbox.directory, ...systems }));
    sandbox.process = spawn(BINARY, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(readline.createInterface({ input: sandbox.process.stdout }), 'line');
    sandbox.addresses = JSON.parse(line);
    return sandbox;
  }

  async stop() {
    const gone = once(this.process, 'exit');
    this.process.kill('SIGINT');
    await gone;
    await rm(this.directory, { recursive: true });
  }

  url(system) {
    return `http://${this.addresses[system]}`;
  }

  key(channel, ...name) {
    const directory = { wechatpay: this.addresses.keys_dir, alipay: this.addresses.alipay_keys_dir }[channel];
    return readFileSync(path.join(directory, ...name), 'utf8');
  }

  async control(method, target, body, expected = 200) {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(this.url('control') + target, { method, headers, body: JSON.stringify(body) });
    const text = await answer.text();
    assert.equal(answer.status, expected, text);
    return JSON.parse(text);
  }

  stage(system, operation, fault) {
    return this.control('POST', '/faults', { system, operation, fault }, 201);
  }
}

export class Endpoint {
  #received = [];
  #waiting = [];

  /** Answers with the status, and with the word where it has one. */
  static async start(status, word) {
    const endpoint = new Endpoint();
    endpoint.server = http.createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const sent = { headers: request.headers, body: Buffer.concat(chunks).toString() };
      const waits = endpoint.#waiting.shift();
      if (waits) waits(sent); else endpoint.#received.push(sent);
      response.writeHead(status).end(word);
    });
    endpoint.server.listen(0, '127.0.0.1');
    await once(endpoint.server, 'listening');
    endpoint.url = `http://127.0.0.1:${endpoint.server.address().port}/notify`;
    return endpoint;
  }

  /** What is sent next: headers and body. */
  async next() {
    return this.#received.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The parameters of the next form that comes. */
  async nextForm() {
    return Object.fromEntries(new URLSearchParams((await this.next()).body));
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
