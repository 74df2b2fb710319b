// What each test process starts with. Node 22.18 and newer read TypeScript themselves, in a fraction of the time that tsx takes for a file.
import module from 'node:module'

process.env.NODE_ENV ??= 'test'
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
// Without effect on Node 20.
module.enableCompileCache?.('node_modules/.cache/node')
if (!process.features.typescript) {
  // A compiled copy tells of its failures by its source's lines. What has no copy is read through tsx.
  if (process.argv[1]?.includes('node_modules/.cache/javascript')) process.setSourceMapsEnabled(true)
  else if (process.argv[1]?.endsWith('.ts')) await import('tsx')
}
