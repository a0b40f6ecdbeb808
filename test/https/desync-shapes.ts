/**
 * Requests in which a second one hides: read in one way they are one request, read in another they are two. `refused`
 * must be answered once with an error and closed; `framed` are legal, and what hides is body and nothing else.
 */
export interface Shape {
  readonly title: string
  readonly bytes: Buffer
  readonly expected: 'refused' | 'framed'
}

export const HIDDEN = 'POST /topics/canary HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\ncanary'

const LINE = 'POST /topics/t HTTP/1.1\r\n'
const HOST = 'Host: a.example\r\n'
const bytes = (text: string) => Buffer.from(text, 'latin1')
const refused = (title: string, text: string): Shape => ({ title, bytes: bytes(text), expected: 'refused' })
const framed = (title: string, text: string): Shape => ({ title, bytes: bytes(text), expected: 'framed' })
const withHeaders = (title: string, headers: string, rest = HIDDEN) =>
  refused(title, `${LINE}${HOST}${headers}\r\n\r\n${rest}`)
const withLine = (title: string, line: string, headers = 'Content-Length: 0') =>
  refused(title, `${line}\r\n${HOST}${headers}\r\n\r\n${HIDDEN}`)
const withLength = (value: string) =>
  withHeaders(`Content-Length: ${JSON.stringify(value)}`, `Content-Length: ${value}`)
const withCoding = (value: string) =>
  withHeaders(`Transfer-Encoding: ${JSON.stringify(value)}`, `Transfer-Encoding: ${value}`, `0\r\n\r\n${HIDDEN}`)
const withChunks = (title: string, chunks: string) =>
  withHeaders(title, 'Transfer-Encoding: chunked', `${chunks}${HIDDEN}`)

const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='

export const SHAPES: readonly Shape[] = [
  // two lengths
  withHeaders('Content-Length 0 with chunked', 'Content-Length: 0\r\nTransfer-Encoding: chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders('chunked with Content-Length 6', 'Transfer-Encoding: chunked\r\nContent-Length: 6', `0\r\n\r\n${HIDDEN}`),
  withHeaders(
    'Content-Length with chunked in capitals',
    'Content-Length: 4\r\nTRANSFER-ENCODING: CHUNKED',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders('Content-Length twice, the same', `Content-Length: 0\r\nContent-Length: 0`),
  withHeaders('Content-Length twice, 0 and 6', 'Content-Length: 0\r\nContent-Length: 6'),
  withHeaders('Content-Length twice, 100 and 0', 'Content-Length: 100\r\nContent-Length: 0'),
  withHeaders('Content-Length twice with another header between', 'Content-Length: 0\r\nX: 1\r\ncontent-length: 0'),
  withHeaders('Content-Length twice in another spelling', 'Content-Length: 0\r\ncOnTeNt-LeNgTh: 9'),
  // one length that can be read in two ways
  ...[
    '+0',
    '-0',
    '-1',
    '0, 0',
    '0,6',
    '0 6',
    '0x0',
    '0x10',
    '00x',
    '0.0',
    '0e0',
    '1e1',
    '',
    '"0"',
    '0;',
    '0\t0',
    ',0',
    '0,',
    '٠',
    '0_0',
    'a',
    '0\x0b',
    '0\x00',
    '\x000',
    '18446744073709551616',
    '99999999999999999999999',
  ].map(withLength),
  withHeaders('space before the colon of Content-Length', 'Content-Length : 0'),
  withHeaders('tab before the colon of Content-Length', 'Content-Length\t: 0'),
  withHeaders('space before the name Content-Length', ' Content-Length: 0'),
  withHeaders('Content-Length folded', 'Content-Length:\r\n 0'),
  withHeaders('Content-Length folded by a tab', 'Content-Length:\r\n\t0'),
  withHeaders('vertical tab before the length', 'Content-Length:\x0b0'),
  withHeaders('form feed before the length', 'Content-Length:\x0c0'),
  withHeaders('Content-Length without a colon', 'Content-Length 0'),
  withHeaders('NUL in the name Content-Length', 'Content\x00-Length: 0'),
  withHeaders(
    'underscore twin of Content-Length with chunked',
    'Content_Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 0',
    `0\r\n\r\n${HIDDEN}`,
  ),
  // codings
  ...[
    'identity',
    'chunked, identity',
    'identity, chunked',
    'gzip, chunked',
    'chunked, chunked',
    'chunked;q=1',
    'x',
    'xchunked',
    'chunkedx',
    '"chunked"',
    "'chunked'",
    '',
    'chunked,',
    ',chunked',
    'cow',
    'chunk',
    '\x0bchunked',
    '\x0cchunked',
    'chunked\x0b',
    '\x00chunked',
    'chun\x00ked',
    'chunked\x00',
    'chunked foo',
    'deflate',
    'chunKed, x',
  ].map(withCoding),
  withHeaders(
    'Transfer-Encoding twice',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders(
    'Transfer-Encoding chunked, then identity',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders(
    'Transfer-Encoding identity, then chunked',
    'Transfer-Encoding: identity\r\nTransfer-Encoding: chunked',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders('space before the colon of Transfer-Encoding', 'Transfer-Encoding : chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders('space before the name Transfer-Encoding', ' Transfer-Encoding: chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders('Transfer-Encoding folded', 'Transfer-Encoding:\r\n chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders(
    'Transfer-Encoding on a folded line of another header',
    'X: 1\r\n Transfer-Encoding: chunked',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders('Transfer-Encoding after a bare LF', 'X: 1\nTransfer-Encoding: chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders('Transfer-Encoding after a bare CR', 'X: 1\rTransfer-Encoding: chunked', `0\r\n\r\n${HIDDEN}`),
  withHeaders(
    'colon before the name Transfer-Encoding',
    ': x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0',
    `0\r\n\r\n${HIDDEN}`,
  ),
  withHeaders(
    'underscore twin of Transfer-Encoding',
    'Transfer_Encoding: chunked\r\nContent-Length: 0',
    `0\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'HTTP/1.0 with Transfer-Encoding',
    `POST /topics/t HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'HTTP/1.0 with both lengths',
    `POST /topics/t HTTP/1.0\r\n${HOST}Connection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
  ),
  // chunks
  withChunks('chunk size with a sign', '+0\r\n\r\n'),
  withChunks('chunk size below zero', '-0\r\n\r\n'),
  withChunks('chunk size with 0x', '0x0\r\n\r\n'),
  withChunks('chunk size with a space before it', ' 0\r\n\r\n'),
  withChunks('chunk size with a space after it', '0 \r\n\r\n'),
  withChunks('chunk size with a tab after it', '1\t\r\na\r\n0\r\n\r\n'),
  withChunks('chunk size that is no number', 'g\r\n\r\n'),
  withChunks('chunk size empty', '\r\n\r\n'),
  withChunks('chunk size past 64 bits', '10000000000000000\r\na\r\n0\r\n\r\n'),
  withChunks('chunk size of all ones', 'ffffffffffffffff\r\na\r\n0\r\n\r\n'),
  withChunks('chunk size line ended by LF', '1\na\r\n0\r\n\r\n'),
  withChunks('chunk size line ended by CR', '1\ra\r\n0\r\n\r\n'),
  withChunks('chunk data not ended', '1\r\nab0\r\n\r\n'),
  withChunks('chunk data ended by LF', '1\r\na\n0\r\n\r\n'),
  withChunks('chunk data ended by CR', '1\r\na\r0\r\n\r\n'),
  withChunks('chunk data longer than its size', '1\r\nabc\r\n0\r\n\r\n'),
  withChunks('chunk extension with a bare LF', '1;x\na\r\n0\r\n\r\n'),
  withChunks('chunk extension with a bare CR', '1;a=\rb\r\na\r\n0\r\n\r\n'),
  withChunks('chunk extension with a NUL', '1;a\x00\r\na\r\n0\r\n\r\n'),
  withChunks('last chunk ended by LF', '0\n\n'),
  withChunks('trailer that ends by LF', '0\r\nX: 1\n\r\n'),
  withChunks('trailer that is folded', '0\r\nX: 1\r\n 2\r\n\r\n'),
  withChunks('trailer Content-Length', '0\r\nContent-Length: 6\r\n\r\n'),
  withChunks('trailer Transfer-Encoding', '0\r\nTransfer-Encoding: chunked\r\n\r\n'),
  withChunks('trailer Host', '0\r\nHost: b.example\r\n\r\n'),
  withChunks('underscore in a chunk size', '0_0\r\n\r\n'),
  // request line
  withLine('tab in the request line', 'POST\t/topics/t HTTP/1.1'),
  withLine('space at the end of the request line', 'POST /topics/t HTTP/1.1 '),
  withLine('space in the target', 'POST /topics/t x HTTP/1.1'),
  withLine('HTTP/0.9 line', 'POST /topics/t'),
  withLine('HTTP/1.2', 'POST /topics/t HTTP/1.2'),
  withLine('HTTP/2.0', 'POST /topics/t HTTP/2.0'),
  withLine('HTTP/11', 'POST /topics/t HTTP/11'),
  withLine('http/1.1 in small letters', 'POST /topics/t http/1.1'),
  withLine('HTTP/1.1 with a line inside', 'POST /topics/t HTTP/1.1\nX: 1'),
  withLine('method in small letters', 'post /topics/t HTTP/1.1'),
  withLine('unknown method', 'PSOT /topics/t HTTP/1.1'),
  withLine('method with a control byte', 'PO\x01ST /topics/t HTTP/1.1'),
  withLine('CONNECT', 'CONNECT a.example:443 HTTP/1.1'),
  withLine('NUL in the target', 'POST /topics/t\x00 HTTP/1.1'),
  withLine('control byte in the target', 'POST /topics/\x01t HTTP/1.1'),
  withLine('DEL in the target', 'POST /topics/\x7ft HTTP/1.1'),
  withLine('bytes above 0x7f in the target', 'POST /topics/\xc3\xa4 HTTP/1.1'),
  withLine('vertical tab in the target', 'POST /topics/t\x0b HTTP/1.1'),
  withLine('CR in the target', 'POST /topics/t\rX HTTP/1.1'),
  withLine('LF in the target', 'POST /topics/t\nX HTTP/1.1'),
  withLine('fragment in the target', 'POST /topics/t#/x HTTP/1.1'),
  withLine('backslash in the target', 'POST \\topics\\t HTTP/1.1'),
  withLine('target without a slash', 'POST topics/t HTTP/1.1'),
  withLine('asterisk as the target of POST', 'POST * HTTP/1.1'),
  withLine('authority as the target', 'POST a.example:443 HTTP/1.1'),
  withLine('absolute target of another host', 'POST https://b.example/topics/t HTTP/1.1'),
  withLine('absolute target of another scheme', 'POST ftp://a.example/topics/t HTTP/1.1'),
  withLine('absolute target with a user', 'POST https://a.example@b.example/topics/t HTTP/1.1'),
  withLine('absolute target with our name as the user', 'POST https://b.example@a.example/topics/t HTTP/1.1'),
  withLine('absolute target without a host', 'POST https:///topics/t HTTP/1.1'),
  withLine('two slashes and another host as the target', 'POST //b.example/topics/t HTTP/1.1'),
  refused(
    'LF alone at the end of the request line',
    `POST /topics/t HTTP/1.1\n${HOST}Content-Length: 0\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'CR alone at the end of the request line',
    `POST /topics/t HTTP/1.1\r${HOST}Content-Length: 0\r\n\r\n${HIDDEN}`,
  ),
  refused('LF alone everywhere', `POST /topics/t HTTP/1.1\nHost: a.example\nContent-Length: 0\n\n${HIDDEN}`),
  refused('a space before the method', ` ${LINE}${HOST}Content-Length: 0\r\n\r\n${HIDDEN}`),
  refused('NUL before the method', `\x00${LINE}${HOST}Content-Length: 0\r\n\r\n${HIDDEN}`),
  // hosts
  refused('no Host', `${LINE}Content-Length: 0\r\n\r\n${HIDDEN}`),
  refused('two Hosts', `${LINE}${HOST}Host: a.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('two Hosts of which one is ours', `${LINE}${HOST}Host: b.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('empty Host', `${LINE}Host:\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host of another domain', `${LINE}Host: b.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('a list of Hosts', `${LINE}Host: a.example, b.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host with a user', `${LINE}Host: x@a.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host with a path', `${LINE}Host: a.example/x\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host with a port that is none', `${LINE}Host: a.example:x\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host with two dots at its end', `${LINE}Host: a.example..\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host with a space inside', `${LINE}Host: a.example b.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('Host folded', `${LINE}Host: a.example\r\n b.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('space before the colon of Host', `${LINE}Host : a.example\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  // header fields
  withHeaders('a header without a name', 'Content-Length: 0\r\n: x'),
  withHeaders('a header without a colon', 'Content-Length: 0\r\nX'),
  withHeaders('a space in a header name', 'Content-Length: 0\r\nX Y: 1'),
  withHeaders('a NUL in a header value', 'Content-Length: 0\r\nX: \x00'),
  withHeaders('a control byte in a header value', 'Content-Length: 0\r\nX: a\x01b'),
  withHeaders('DEL in a header value', 'Content-Length: 0\r\nX: a\x7fb'),
  withHeaders('a bare CR in a header value', 'Content-Length: 0\r\nX: a\rb'),
  withHeaders('a bare LF in a header value', 'Content-Length: 0\r\nX: a\nb'),
  withHeaders('a header folded', 'Content-Length: 0\r\nX: a\r\n b'),
  withHeaders('a header folded by a tab', 'Content-Length: 0\r\nX: a\r\n\tb'),
  withHeaders('a header folded into an empty line', 'Content-Length: 0\r\nX: a\r\n '),
  withHeaders('a name with bytes above 0x7f', 'Content-Length: 0\r\nX\xe9: 1'),
  withHeaders('a name with a quote', 'Content-Length: 0\r\n"X": 1'),
  withHeaders('a name with brackets', 'Content-Length: 0\r\nX(Y): 1'),
  withHeaders('end of headers by LF CR LF', 'Content-Length: 0\r\nX: 1\n'),
  // upgrades
  refused(
    'an upgrade with Content-Length',
    `GET /mqtt HTTP/1.1\r\n${HOST}${UPGRADE}\r\nContent-Length: 5\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'an upgrade with chunks',
    `GET /mqtt HTTP/1.1\r\n${HOST}${UPGRADE}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'an upgrade of another protocol',
    `GET /mqtt HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: x\r\n\r\n${HIDDEN}`,
  ),
  refused(
    'an upgrade to h2c',
    `GET /mqtt HTTP/1.1\r\n${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n${HIDDEN}`,
  ),
  refused('an upgrade by POST', `POST /topics/t HTTP/1.1\r\n${HOST}${UPGRADE}\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  refused('an upgrade by HTTP/1.0', `GET /mqtt HTTP/1.0\r\n${HOST}${UPGRADE}\r\n\r\n${HIDDEN}`),
  refused(
    'an upgrade without Connection',
    `GET /mqtt HTTP/1.1\r\n${HOST}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n${HIDDEN}`,
  ),
  refused('the preface of HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${HIDDEN}`),
  refused('Expect that we do not know', `${LINE}${HOST}Expect: 200-ok\r\nContent-Length: 0\r\n\r\n${HIDDEN}`),
  // legal ones: the second request is a body
  framed('a body that looks like a request', `${LINE}${HOST}Content-Length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`),
  framed(
    'a chunk that looks like a request',
    `${LINE}${HOST}Transfer-Encoding: chunked\r\n\r\n${HIDDEN.length.toString(16)}\r\n${HIDDEN}\r\n0\r\n\r\n`,
  ),
  framed(
    'a chunk size in capitals',
    `${LINE}${HOST}Transfer-Encoding: Chunked\r\n\r\n${HIDDEN.length.toString(16).toUpperCase()}\r\n${HIDDEN}\r\n0\r\n\r\n`,
  ),
  framed('spaces around the length', `${LINE}${HOST}Content-Length:   ${HIDDEN.length}  \r\n\r\n${HIDDEN}`),
  framed(
    'a chunk extension',
    `${LINE}${HOST}Transfer-Encoding: chunked\r\n\r\n${HIDDEN.length.toString(16)};a=b\r\n${HIDDEN}\r\n0\r\n\r\n`,
  ),
]
