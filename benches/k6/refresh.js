// The load that broke the refresh endpoint of the report: 200 users who refresh all the time.
//
//   k6 run -e URL=http://127.0.0.1:8080 -e TOKENS=tokens.txt benches/k6/refresh.js
//
// TOKENS is a file with one refresh token a line, at least one for each user, for instance from
//   for i in $(seq 200); do gatepost session create --subject user-$i --client web \
//     --output json | jq -r .refresh_token; done > tokens.txt
// Each run uses the tokens up: make new ones for the next.

import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { SharedArray } from 'k6/data';

const url = `${__ENV.URL || 'http://127.0.0.1:8080'}/api/auth/refresh`;
const tokens = new SharedArray('tokens', () =>
  open(__ENV.TOKENS || 'tokens.txt').split('\n').filter((line) => line !== ''));

export const options = {
  scenarios: { refresh: { executor: 'constant-vus', vus: 200, duration: '60s' } },
  thresholds: { http_req_duration: ['p(99)<200'], http_req_failed: ['rate==0'], checks: ['rate==1'] },
};

let token;

export default function () {
  token = token || tokens[exec.vu.idInTest - 1];
  const answer = http.post(url, JSON.stringify({ refresh_token: token }), {
    headers: { 'Content-Type': 'application/json' },
  });
  const good = check(answer, {
    'it is refreshed': (a) => a.status === 200,
    'by a new token': (a) => a.status === 200 && a.json('refresh_token') !== token,
  });
  if (good) {
    token = answer.json('refresh_token');
  }
}
