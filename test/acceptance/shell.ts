// A stranger's shell: the commands of a post as they stand there, in a folder of their own, with `aws` pointed at the local AWS.
import { join } from 'node:path'
import type { Test } from 'tap'
import { AWS_ENV, type Endpoints } from './service-process.ts'
import { folder } from './processes.ts'
import { type Ended, hasTool, tool } from './tools.ts'

export interface Shell {
  readonly dir: string
  /** Runs a command line to its end, whatever that is. */
  readonly run: (command: string, input?: string) => Promise<Ended>
  /** The same for one that must succeed; what it says, parsed when it is JSON. */
  readonly must: <T = Record<string, unknown>>(command: string, input?: string) => Promise<T>
  /** The same for an `aws` that must be refused with this error code. */
  readonly refused: (command: string, code: string) => Promise<void>
}

// The option, because versions of the CLI before 2.13 read no AWS_ENDPOINT_URL.
const AWS = 'aws () { local url=$IOT_URL; [ "$1" = dynamodb ] && url=$DYNAMODB_URL; command aws --endpoint-url "$url" "$@"; }'

export function shell (t: Test, { iotUrl, dynamodbUrl }: Pick<Endpoints, 'iotUrl' | 'dynamodbUrl'>, settings: Record<string, string> = {}): Shell {
  const dir = folder(t)
  const inherited = Object.fromEntries(['PATH', 'HOME', 'TMPDIR', 'LANG'].flatMap(name => process.env[name] === undefined ? [] : [[name, process.env[name]]]))
  const env = {
    ...inherited,
    ...AWS_ENV,
    AWS_DEFAULT_REGION: AWS_ENV.AWS_REGION,
    AWS_DEFAULT_OUTPUT: 'json',
    AWS_CONFIG_FILE: join(dir, 'no-config'),
    AWS_SHARED_CREDENTIALS_FILE: join(dir, 'no-credentials'),
    AWS_EC2_METADATA_DISABLED: 'true',
    // One attempt: what is refused is refused, and nothing is hidden by a repetition.
    AWS_MAX_ATTEMPTS: '1',
    AWS_PAGER: '',
    NO_PROXY: '*',
    IOT_URL: iotUrl,
    DYNAMODB_URL: dynamodbUrl,
    ...settings
  }
  // bash takes Node's pipes for a network connection, and would read ~/.bashrc.
  const run = async (command: string, input?: string) => await tool('bash', ['--norc', '-c', `set -u -o pipefail\n${AWS}\n${command}`], input, { cwd: dir, env, timeout: 600_000 })
  return {
    dir,
    run,
    async must<T> (command: string, input?: string) {
      const { code, stdout, stderr } = await run(command, input)
      t.equal(code, 0, `$ ${command}${code === 0 ? '' : `\n${stderr}`}`)
      if (code !== 0) throw new Error(`the story ends here: ${command}\n${stderr}`)
      return (/^\s*[{[]/.test(stdout) ? JSON.parse(stdout) : stdout) as T
    },
    async refused (command, code) {
      const { code: exit, stderr } = await run(command)
      t.not(exit, 0, `$ ${command}`)
      t.match(stderr, `An error occurred (${code}) when calling`, `is refused: ${code}`)
    }
  }
}

/** Whether the AWS CLI is here; when not, says what is left out and why. */
export async function hasAwsCli (t: Test, untested: string): Promise<boolean> {
  return await hasTool(t, ['aws', '--version'], 'Debian and pip: awscli', untested)
}
