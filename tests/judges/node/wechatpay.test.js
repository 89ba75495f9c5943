// wechatpay-axios-plugin and wechatpay-node-v3, clients that nobody here wrote, against the sandbox's WeChat Pay.

import assert from 'node:assert/strict';
import { X509Certificate, createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';

import { Aes, Formatter, Rsa, Wechatpay } from 'wechatpay-axios-plugin';
import node from 'wechatpay-node-v3';

import { Endpoint, Sandbox } from './sandbox.js';

const MCHID = '1900430100';
const OTHER_MCHID = '1900140100';
const APPID = 'wx5a4db0c5a4db0c51';
const HOST = 'https://api.mch.weixin.qq.com';
const PATIENCE = { timeout: 60_000 };

let sandbox;
let callbacks;
let made = 0;

before(async () => {
  sandbox = await Sandbox.start({ wechatpay: { notify_second: '20ms', refund_after: '50ms' } });
  callbacks = await Endpoint.start(204);
});

after(async () => {
  callbacks.stop();
  await sandbox.stop();
});

const number = () => `NODE${String((made += 1)).padStart(8, '0')}`;
const today = () => new Date(Date.now() + 8 * 3_600_000).toISOString().slice(0, 10);
const pay = (what) => sandbox.control('POST', '/wechatpay/pay', what);
const parts = (whole) =>
  [[MCHID, 20_000], [OTHER_MCHID, 5_000]].map(([mchid, total], part) => ({
    mchid,
    out_trade_no: `${whole}-${part}`,
    description: '交通违法罚款',
    attach: 'a',
    amount: { total_amount: total, currency: 'CNY' },
  }));

/** Opens a callback as the plugin's documents say; throws where the signature is not the platform's. */
function opened({ headers, body }, publicKey) {
  const signed = Formatter.joinedByLineFeed(headers['wechatpay-timestamp'], headers['wechatpay-nonce'], body);
  assert.ok(Rsa.verify(signed, headers['wechatpay-signature'], publicKey), 'the signature verifies');
  const { event_type: event, resource } = JSON.parse(body);
  const plain = Aes.AesGcm.decrypt(resource.ciphertext, sandbox.key('wechatpay', MCHID, 'apiv3_key.txt').trim(), resource.nonce, resource.associated_data);
  return { event, resource: JSON.parse(plain) };
}

/** What the bill must say of a payment of 200 yuan and a refund of 12.34: read by the plugin's own reader of bills. */
function assertBill(told, content, out) {
  const csv = content[0] === 0x1f ? gunzipSync(content) : content;
  assert.equal(createHash('sha1').update(csv).digest('hex'), told.hash_value);
  const { rows, summary } = Formatter.castCsvBill(csv);
  assert.equal(Number(summary['总交易单数']), rows.length);
  const mine = rows.filter((row) => row['商户订单号'] === out);
  assert.deepEqual(mine.map((row) => [row['交易状态'], row['订单金额'], row['申请退款金额'], row['商品名称']]), [
    ['SUCCESS', '200.00', '0.00', '罚款,两项'],
    ['REFUND', '0.00', '12.34', '罚款,两项'],
  ]);
}

for (const mode of ['public key', 'certificate']) {
  describe(`wechatpay-axios-plugin, ${mode}`, () => {
    let client;
    let platform;

    before(() => {
      const certificate = sandbox.key('wechatpay', 'platform', 'certificate.pem');
      const [serial, key] = mode === 'certificate'
        ? [new X509Certificate(certificate).serialNumber, certificate]
        : [sandbox.key('wechatpay', 'platform', 'public_key_id.txt').trim(), sandbox.key('wechatpay', 'platform', 'public_key.pem')];
      platform = sandbox.key('wechatpay', 'platform', 'public_key.pem');
      client = new Wechatpay({
        baseURL: `http://${sandbox.addresses.wechatpay}/`,
        mchid: MCHID,
        serial: sandbox.key('wechatpay', MCHID, 'serial_no.txt').trim(),
        privateKey: sandbox.key('wechatpay', MCHID, 'private_key.pem'),
        certs: { [serial]: key },
        headers: { 'Wechatpay-Serial': serial },
      });
    });

    test('an order is made, paid, called back, refunded, and stands in the bill', PATIENCE, async () => {
      const out = number();
      const order = { appid: APPID, mchid: MCHID, description: '罚款,两项', out_trade_no: out, notify_url: callbacks.url, amount: { total: 20_000 } };
      const { data: { code_url } } = await client.v3.pay.transactions.native.post(order);
      const { transaction_id } = await pay({ code_url });
      const paid = opened(await callbacks.next(), platform);
      assert.deepEqual([paid.event, paid.resource.out_trade_no, paid.resource.transaction_id], ['TRANSACTION.SUCCESS', out, transaction_id]);
      const query = await client.v3.pay.transactions.outTradeNo.$out$.get({ params: { mchid: MCHID }, out });
      assert.equal(query.data.trade_state, 'SUCCESS');
      const refund = { out_trade_no: out, out_refund_no: `R${out}`, notify_url: callbacks.url, amount: { refund: 1_234, total: 20_000, currency: 'CNY' } };
      assert.equal((await client.v3.refund.domestic.refunds.post(refund)).data.status, 'PROCESSING');
      assert.equal(opened(await callbacks.next(), platform).event, 'REFUND.SUCCESS');
      for (const tar_type of ['GZIP', undefined]) {
        const { data: told } = await client.v3.bill.tradebill.get({ params: { bill_date: today(), bill_type: 'ALL', tar_type } });
        const token = new URL(told.download_url).searchParams.get('token');
        const file = await client.v3.billdownload.file.get({ params: { token }, responseType: 'arraybuffer' });
        assertBill(told, Buffer.from(file.data), out);
      }
    });

    test('other trade types, and a combined order', PATIENCE, async () => {
      const order = { appid: APPID, mchid: MCHID, description: '罚款', notify_url: callbacks.url, amount: { total: 100 } };
      const app = await client.v3.pay.transactions.app.post({ ...order, out_trade_no: number() });
      assert.match(app.data.prepay_id, /^wx/);
      const scene_info = { payer_client_ip: '127.0.0.1', h5_info: { type: 'Wap' } };
      const h5 = await client.v3.pay.transactions.h5.post({ ...order, out_trade_no: number(), scene_info });
      assert.match(h5.data.h5_url, /^https:\/\//);
      const whole = number();
      const combined = { combine_appid: APPID, combine_mchid: MCHID, combine_out_trade_no: whole, sub_orders: parts(whole), notify_url: callbacks.url };
      const { data: { code_url } } = await client.v3.combineTransactions.native.post(combined);
      await pay({ code_url });
      const { event, resource } = opened(await callbacks.next(), platform);
      assert.deepEqual([event, resource.combine_out_trade_no, resource.sub_orders.map((part) => part.trade_state)], ['TRANSACTION.SUCCESS', whole, ['SUCCESS', 'SUCCESS']]);
    });

    test('what is not signed by WeChat is refused', PATIENCE, async () => {
      for (const fault of ['bad_signature', 'unsigned']) {
        await sandbox.stage('wechatpay', 'order', fault);
        const order = { appid: APPID, mchid: MCHID, description: '罚款', out_trade_no: number(), notify_url: callbacks.url, amount: { total: 100 } };
        await assert.rejects(client.v3.pay.transactions.native.post(order), /EV3_RES_HEADER|EV3_RES_HEADERS|Verify|incomplete/i, fault);
      }
      for (const fault of ['forged', 'wrong_serial', 'probe']) {
        await sandbox.stage('wechatpay', 'notify', fault);
        const out = number();
        const order = { appid: APPID, mchid: MCHID, description: '罚款', out_trade_no: out, notify_url: callbacks.url, amount: { total: 100 } };
        const { data: { code_url } } = await client.v3.pay.transactions.native.post(order);
        await pay({ code_url });
        const false_one = await callbacks.next();
        assert.throws(() => opened(false_one, platform), /the signature verifies/, fault);
        assert.equal(opened(await callbacks.next(), platform).resource.amount.total, 100);
      }
    });
  });
}

describe('wechatpay-node-v3', () => {
  const Pay = node.default ?? node;
  let client;

  before(() => {
    client = new Pay({
      appid: APPID,
      mchid: MCHID,
      serial_no: sandbox.key('wechatpay', MCHID, 'serial_no.txt').trim(),
      publicKey: Buffer.from(sandbox.key('wechatpay', MCHID, 'certificate.pem')),
      privateKey: Buffer.from(sandbox.key('wechatpay', MCHID, 'private_key.pem')),
      key: sandbox.key('wechatpay', MCHID, 'apiv3_key.txt').trim(),
    });
    const send = async (url, init) => {
      const answer = await fetch(url.replace(HOST, `http://${sandbox.addresses.wechatpay}`), init);
      const raw = Buffer.from(await answer.arrayBuffer());
      const body = raw.toString('utf8');
      const isFile = answer.headers.get('content-type')?.startsWith('application/octet-stream');
      const isCertificates = url.endsWith('/v3/certificates');
      if (answer.ok && !isFile && !isCertificates) {
        const header = (name) => answer.headers.get(`wechatpay-${name}`);
        const [timestamp, nonce, serial, signature] = ['timestamp', 'nonce', 'serial', 'signature'].map(header);
        assert.ok(await client.verifySign({ timestamp, nonce, body, serial, signature }), 'the signature verifies');
      }
      return { status: answer.status, data: isFile ? raw : body ? JSON.parse(body) : undefined };
    };
    client.createHttp({
      get: (url, headers) => send(url, { headers }),
      post: (url, params, headers) => send(url, { method: 'POST', headers, body: JSON.stringify(params) }),
    });
  });

  test('an order is made, paid, refunded, and stands in the bill', PATIENCE, async () => {
    const out = number();
    const order = await client.transactions_native({ description: '罚款,两项', out_trade_no: out, notify_url: callbacks.url, amount: { total: 20_000 } });
    assert.equal(order.status, 200);
    await pay({ code_url: order.data.code_url });
    await callbacks.next();
    assert.equal((await client.query({ out_trade_no: out })).data.trade_state, 'SUCCESS');
    const refund = { out_trade_no: out, out_refund_no: `R${out}`, notify_url: callbacks.url, amount: { refund: 1_234, total: 20_000, currency: 'CNY' } };
    assert.equal((await client.refunds(refund)).data.status, 'PROCESSING');
    await callbacks.next();
    assert.equal((await client.find_refunds(`R${out}`)).data.status, 'SUCCESS');
    const told = await client.tradebill({ bill_date: today(), bill_type: 'ALL', tar_type: 'GZIP' });
    // It signs the whole address unless that is of WeChat's own host.
    const { pathname, search } = new URL(told.data.download_url);
    const file = await client.downloadBill(`${HOST}${pathname}${search}`);
    assertBill(told.data, file.data, out);
  });

  test('a pay sheet for an app is signed as WeChat says', PATIENCE, async () => {
    const { status, data } = await client.transactions_app({ description: '罚款', out_trade_no: number(), notify_url: callbacks.url, amount: { total: 100 } });
    assert.equal(status, 200);
    const signed = [data.appid, data.timestamp, data.noncestr, data.prepayid, ''].join('\n');
    assert.ok(Rsa.verify(signed, data.sign, new X509Certificate(sandbox.key('wechatpay', MCHID, 'certificate.pem')).publicKey));
  });

  test('a combined order is made, asked for and closed', PATIENCE, async () => {
    const whole = number();
    const sub_orders = parts(whole);
    const combined = await client.combine_transactions_native({ combine_out_trade_no: whole, sub_orders, notify_url: callbacks.url });
    assert.equal(combined.status, 200);
    const states = async () => (await client.combine_query(whole)).data.sub_orders.map((part) => part.trade_state);
    assert.deepEqual(await states(), ['NOTPAY', 'NOTPAY']);
    const names = sub_orders.map(({ mchid, out_trade_no }) => ({ mchid, out_trade_no }));
    assert.equal((await client.combine_close(whole, names)).status, 204);
    assert.deepEqual(await states(), ['CLOSED', 'CLOSED']);
  });
});
