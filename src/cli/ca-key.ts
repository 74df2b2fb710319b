import { type KeyObject, createPrivateKey } from 'node:crypto'
import { isCancel, password } from '@clack/prompts'
import { readText } from './device-folder.ts'
import { EXIT, Failure, codeOf, messageOf } from './failure.ts'

/** PKCS#8 says so in its label (RFC 7468), older forms in a header. */
const ENCRYPTED = /^-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m

/**
 * Reads a CA's private key, encrypted or not. The passphrase comes from a file, or is asked for on a terminal; neither it nor the key
 * is ever printed, sent or written. Throws a `Failure`.
 */
export async function readCaKey (file: string, passphraseFile: string | undefined): Promise<KeyObject> {
  const pem = await readText(file)
  const given = passphraseFile === undefined ? undefined : lineOf(await readText(passphraseFile))
  const passphrase = given ?? (ENCRYPTED.test(pem) ? await ask(file) : undefined)
  try {
    return createPrivateKey({ key: pem, ...passphrase !== undefined && { passphrase } })
  } catch (error) {
    // OpenSSL names a wrong passphrase only; what is no key it puts in words that change.
    const detail = /BAD_DECRYPT|BAD_PASSWORD/.test(codeOf(error)) ? 'the passphrase is wrong' : messageOf(error)
    throw new Failure(EXIT.failed, `the key in ${file} cannot be read`, { detail, remedy: 'It must be an RSA or EC key in PEM' }, error)
  }
}

async function ask (file: string): Promise<string> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new Failure(EXIT.usage, `the key in ${file} is encrypted`, { remedy: 'Give the file with its passphrase: --passphrase-file' })
  }
  const answer = await password({ message: `Passphrase of ${file}`, output: process.stderr })
  if (isCancel(answer)) throw new Failure(EXIT.interrupted, 'interrupted')
  return answer
}

function lineOf (text: string): string {
  return text.replace(/\r?\n$/, '')
}
