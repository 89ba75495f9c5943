// alipay-sdk for Node, Alipay's own client, against the sandbox's Alipay: the gateway (v2) and the REST form (v3).

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { AlipaySdk } from 'alipay-sdk';

import { Endpoint, Sandbox } from './sandbox.js';

const APP = '2021000000430100';
const SUBJECT = '交通违法罚款 / 100%';
const LIMIT = { timeout: 60_000 };

let sandbox, endpoint, alipay;
let last = 0;

const number = () => `NODE${String((last += 1)).padStart(8, '0')}`;
const act = (what, who, expected) => sandbox.control('POST', `/alipay/${what}`, who, expected);

async function sdk(app, alipayPublicKey) {
  return new AlipaySdk({
    appId: app, keyType: 'PKCS8', privateKey: await sandbox.key('alipay', app, 'app_private_key.pem'), alipayPublicKey,
    gateway: `${sandbox.url('alipay')}/gateway.do`, endpoint: sandbox.url('alipay'),
  });
}

before(async () => {
  sandbox = await Sandbox.start({ alipay: { notify_second: '1ms' } });
  endpoint = await Endpoint.start(200, 'success');
  alipay = await sdk(APP, await sandbox.key('alipay', 'alipay_public_key.pem'));
});

after(async () => {
  endpoint.stop();
  await sandbox.stop();
});

/** What both ways of the SDK to check a notice say. */
function verified(told) {
  const ways = [alipay.checkNotifySignV2(told), alipay.checkNotifySign({ ...told, subject: encodeURIComponent(told.subject) })];
  assert.equal(ways[0], ways[1], 'both ways say the same');
  return ways[0];
}

test('the gateway takes what the SDK signs, and the SDK verifies what it answers and tells', LIMIT, async () => {
  const no = number();
  const exec = (method, bizContent, more) => alipay.exec(method, { bizContent, ...more }, { validateSign: true });
  const made = await exec('alipay.trade.precreate', { outTradeNo: no, totalAmount: '200.00', subject: SUBJECT }, { notifyUrl: endpoint.url });
  assert.equal(made.code, '10000');
  assert.equal((await exec('alipay.trade.query', { outTradeNo: no })).subCode, 'ACQ.TRADE_NOT_EXIST');
  const { trade_no: tradeNo } = await act('pay', { qr_code: made.qrCode });
  const told = await endpoint.nextForm();
  assert.ok(verified(told));
  assert.deepEqual([told.out_trade_no, told.trade_no, told.trade_status, told.subject], [no, tradeNo, 'TRADE_SUCCESS', SUBJECT]);
  assert.ok(!verified({ ...told, total_amount: '0.01' }));
  assert.equal((await exec('alipay.trade.query', { tradeNo })).tradeStatus, 'TRADE_SUCCESS');

  const refund = { outTradeNo: no, refundAmount: 12.5, outRequestNo: `R${no}` };
  assert.equal((await exec('alipay.trade.refund', refund)).fundChange, 'Y', 'an amount may be a number too');
  assert.equal((await exec('alipay.trade.refund', refund)).fundChange, 'N');
  const found = await exec('alipay.trade.fastpay.refund.query', { outTradeNo: no, outRequestNo: `R${no}` });
  assert.deepEqual([found.refundStatus, found.refundAmount], ['REFUND_SUCCESS', '12.50']);
  assert.equal((await endpoint.nextForm()).refund_fee, '12.50');
  assert.equal((await exec('alipay.trade.close', { outTradeNo: no })).subCode, 'ACQ.TRADE_STATUS_ERROR');

  await sandbox.stage('alipay', 'query', 'bad_signature');
  await assert.rejects(exec('alipay.trade.query', { outTradeNo: no }), /验签失败/);
  const stranger = await sdk('2021000000140100', await sandbox.key('alipay', 'alipay_public_key.pem'));
  stranger.config.appId = APP;
  assert.equal((await stranger.exec('alipay.trade.query', { bizContent: { outTradeNo: no } })).subCode, 'isv.invalid-signature');
});

test('pages and strings for the app are paid with', LIMIT, async () => {
  const order = (productCode) => ({
    bizContent: { outTradeNo: number(), totalAmount: '0.01', subject: SUBJECT, productCode },
    notifyUrl: endpoint.url, returnUrl: 'http://127.0.0.1:9/back',
  });
  for (const [method, code] of [['alipay.trade.page.pay', 'FAST_INSTANT_TRADE_PAY'], ['alipay.trade.wap.pay', 'QUICK_WAP_WAY']]) {
    const url = alipay.pageExecute(method, 'GET', order(code));
    const shown = await fetch(url);
    assert.ok(shown.status === 200 && (await shown.text()).includes('¥0.01'));
    await act('pay', { page_url: url });
    assert.ok(verified(await endpoint.nextForm()));

    const form = alipay.pageExecute(method, 'POST', order(code));
    const action = form.match(/action="([^"]+)"/)[1];
    const inputs = [...form.matchAll(/name="([^"]+)" value="([^"]*)"/g)].map(([, name, value]) => [name, value.replaceAll('&quot;', '"')]);
    const posted = await fetch(action, { method: 'POST', body: new URLSearchParams(inputs) });
    assert.equal(posted.status, 200, await posted.text());
  }
  const string = alipay.sdkExecute('alipay.trade.app.pay', order('QUICK_MSECURITY_PAY'));
  const refused = await act('pay', { order_string: string.replace('0.01', '0.02') }, 409);
  assert.match(refused.error, /^isv\.invalid-signature/);
  await act('pay', { order_string: string });
  assert.ok(verified(await endpoint.nextForm()));
});

test('the REST form takes what the SDK signs, and the SDK verifies what it answers', LIMIT, async () => {
  const no = number();
  const post = async (call, body) => (await alipay.curl('POST', `/v3/alipay/trade/${call}`, { body })).data;
  const refusedBy = (call, body, code, status) =>
    assert.rejects(post(call, body), (error) => error.code === code && error.responseHttpStatus === status);
  const { qr_code: code } = await post('precreate', { out_trade_no: no, total_amount: '9.90', subject: SUBJECT, notify_url: endpoint.url });
  await refusedBy('query', { out_trade_no: no }, 'ACQ.TRADE_NOT_EXIST', 400);
  await act('open', { qr_code: code });
  assert.equal((await endpoint.nextForm()).trade_status, 'WAIT_BUYER_PAY');
  assert.equal((await post('query', { out_trade_no: no })).trade_status, 'WAIT_BUYER_PAY');
  const { trade_no: tradeNo } = await act('pay', { qr_code: code });
  assert.ok(verified(await endpoint.nextForm()));
  assert.deepEqual(await alipay.exec('alipay.trade.query', { bizContent: { tradeNo } }, { validateSign: true }).then((told) => told.totalAmount), '9.90', 'one book');
  const refund = { trade_no: tradeNo, refund_amount: '9.90', out_request_no: 'R1', refund_reason: '多收' };
  assert.equal((await post('refund', refund)).fund_change, 'Y');
  assert.equal((await endpoint.nextForm()).trade_status, 'TRADE_CLOSED');
  const found = await post('fastpay/refund/query', { trade_no: tradeNo, out_request_no: 'R1' });
  assert.deepEqual([found.refund_status, found.refund_reason], ['REFUND_SUCCESS', '多收']);
  await refusedBy('close', { trade_no: tradeNo }, 'ACQ.TRADE_STATUS_ERROR', 400);
  await refusedBy('nothing', {}, 'isv.invalid-method', 404);

  const date = `${tradeNo.slice(0, 4)}-${tradeNo.slice(4, 6)}-${tradeNo.slice(6, 8)}`;
  const query = { bill_type: 'trade', bill_date: date };
  const bill = (await alipay.curl('GET', '/v3/alipay/data/dataservice/bill/downloadurl/query', { query })).data;
  const file = new Uint8Array(await (await fetch(bill.bill_download_url)).arrayBuffer());
  assert.deepEqual([...file.slice(0, 4)], [0x50, 0x4b, 3, 4]);

  for (const [fault, error] of [['bad_signature', 'response-signature-verify-error'], ['busy', 'aop.unknow-error'], ['error_after', 'ACQ.SYSTEM_ERROR']]) {
    await sandbox.stage('alipay', 'query', fault);
    await assert.rejects(post('query', { out_trade_no: no }), (thrown) => thrown.code === error, fault);
  }
  const stranger = await sdk('2021000000140100', await sandbox.key('alipay', 'alipay_public_key.pem'));
  stranger.config.appId = APP;
  await assert.rejects(stranger.curl('POST', '/v3/alipay/trade/query', { body: { out_trade_no: no } }),
    (error) => error.code === 'isv.invalid-signature' && error.responseHttpStatus === 401);
});

test('a forged notice is refused', LIMIT, async () => {
  await sandbox.stage('alipay', 'notify', 'forged');
  const bizContent = { outTradeNo: number(), totalAmount: '5.00', subject: SUBJECT };
  const { qrCode } = await alipay.exec('alipay.trade.precreate', { bizContent, notifyUrl: endpoint.url });
  await act('pay', { qr_code: qrCode });
  const [forged, genuine] = [await endpoint.nextForm(), await endpoint.nextForm()];
  assert.deepEqual([verified(forged), verified(genuine)], [false, true]);
  assert.deepEqual([forged.total_amount, genuine.total_amount], ['0.01', '5.00']);
});
