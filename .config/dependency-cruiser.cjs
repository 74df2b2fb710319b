// Who may import whom: DESIGN section 6. Each rule names what a folder may use; anything else is a fault.
const src = '^src/'
const npm = ['npm', 'npm-dev', 'npm-optional', 'npm-peer', 'core']

const only = (name, from, allowed, comment) => ({
  name,
  comment,
  severity: 'error',
  from: { path: from },
  to: { path: src, pathNot: allowed }
})

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('errors-and-config-stand-alone', '^src/(errors|config|settings)\\.ts$', '^src/settings\\.ts$', 'errors and config import npm only'),
    only('x509', '^src/x509/', '^src/(x509/|errors\\.ts$)', 'x509 knows bytes and errors'),
    only('vending', '^src/vending/', '^src/(vending/|x509/|errors\\.ts$)', 'the domain knows neither HTTP nor AWS'),
    only('adapters', '^src/adapters/', '^src/(adapters/|vending/|errors\\.ts$)', 'adapters know the ports they implement'),
    only('plugins', '^src/plugins/', '^src/(plugins/|vending/|errors\\.ts$)', 'plugins know no adapter and no route'),
    only('schemas', '^src/schemas/', '^src/(schemas/|vending/|errors\\.ts$)', 'what routes say alike: members, examples, failures'),
    only('observed', '^src/observed/', '^src/(observed/|vending/|plugins/metrics\\.ts$|config\\.ts$|errors\\.ts$)', 'the use cases with eyes on them'),
    only('routes', '^src/routes/', '^src/(schemas/|vending/|x509/|errors\\.ts$)', 'a route knows the domain, and no other route'),
    only('local', '^src/local/', '^src/local/', 'an emulator that shares code with the adapters shares their mistakes'),
    only('cli', '^src/cli/', '^src/(cli/|x509/|http-proxy\\.ts$)', 'the command line speaks HTTP'),
    only('ops', '^src/ops\\.ts$', '^src/(plugins/metrics|errors)\\.ts$', 'the ops listener is given everything else'),
    {
      name: 'domain-without-technology',
      comment: 'vending and x509 never import a framework, an SDK or a logger',
      severity: 'error',
      from: { path: '^src/(vending|x509)/' },
      to: { dependencyTypes: npm, path: '(fastify|@aws-sdk|@smithy|pino|@prometheus-io|node_modules/mqtt)', pathNot: src }
    },
    {
      name: 'local-is-loaded-by-local-mode-alone',
      severity: 'error',
      from: { path: src, pathNot: '^src/(local/|local-mode\\.ts$)' },
      to: { path: '^src/local/' }
    },
    {
      name: 'local-mode-is-loaded-dynamically',
      comment: 'production never loads it',
      severity: 'error',
      from: { path: src },
      to: { path: '^src/local-mode\\.ts$', dependencyTypesNot: ['dynamic-import', 'type-only'] }
    },
    {
      name: 'acceptance-is-black-box',
      severity: 'error',
      from: { path: '^test/acceptance/' },
      to: { path: src }
    },
    { name: 'src-never-imports-test', severity: 'error', from: { path: src }, to: { path: '^test/' } },
    {
      name: 'no-development-packages-in-production',
      severity: 'error',
      from: { path: src, pathNot: '^src/local/' },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] }
    }
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '\\.d\\.ts$' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.mjs', '.cjs', '.json'], exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] }
  }
}
