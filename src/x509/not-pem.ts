const FILE_NAME = /^@?(?:[a-z]+:\/\/|~?\/|\.{1,2}[/\\]|[A-Za-z]:\\)\S*$|^@?[\w ./\\-]{1,200}\.(?:csr|pem|p10|req|crt|cer|der|txt)$/i
const BASE64 = /^[A-Za-z0-9+/=\s]{64,}$/

/** What a text is that has no PEM block, and what to do about it; nothing of the text is quoted. */
export function whatIsNotPem (text: string): string {
  const trimmed = text.trim()
  const [first = 0, second = 0] = [text.charCodeAt(0), text.charCodeAt(1)]
  if (trimmed === '') return 'the text is empty'
  // The first bytes of DER, each as a character, or what is no UTF-8 in place of the second.
  if (first === 0x30 && (second === 0xfffd || (second >= 0x80 && second <= 0x84))) return 'it is DER, which is binary; PEM is its base64 between those lines'
  if (/^(?:\ufffe|\u00ff\u00fe|\u00fe\u00ff|\ufffd\ufffd)|^.?\0./s.test(text)) return 'it is UTF-16; save it as UTF-8'
  if (FILE_NAME.test(trimmed)) return 'it is the name of a file; send what is in the file'
  if (/^[{[]/.test(trimmed)) return 'it is JSON; send the PEM text alone'
  if (/^30[0-9a-f\s]{62,}$/i.test(trimmed)) return 'it is hex; PEM is base64 between those lines'
  if (BASE64.test(trimmed)) return 'it is base64 without the BEGIN and END lines'
  if (/BEGIN [A-Z]/.test(text)) return 'its BEGIN line is damaged: there are five hyphens on either side of it'
  return 'there is no BEGIN line'
}
