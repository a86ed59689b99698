// Two jobs: the rules of typescript-eslint that find real bugs (a forgotten await is an unhandled rejection in a daemon
// that runs for months), and the floors of the house: an import may only go down. See docs/architecture.md.
import js from '@eslint/js'
import { createNodeResolver } from 'eslint-plugin-import-x'
import importX from 'eslint-plugin-import-x'
import tseslint from 'typescript-eslint'

const floors = ['base', 'host', 'oci', ['sandbox', 'image', 'network', 'storage'], 'engine', 'api', 'daemon']

/** One zone for each folder: it may not import from a floor above, nor from its neighbours on the same floor. */
function zones() {
  const result = []
  for (const [height, floor] of floors.entries()) {
    for (const folder of [floor].flat()) {
      const above = floors.slice(height + 1).flat()
      for (const forbidden of [...above, 'cli']) {
        result.push({
          target: `./src/${folder}`,
          from: `./src/${forbidden}`,
          message: `src/${folder} lies below src/${forbidden}: imports go down only (docs/architecture.md).`,
        })
      }
      for (const neighbour of [floor].flat()) {
        if (neighbour === folder) continue
        result.push({
          target: `./src/${folder}`,
          from: `./src/${neighbour}`,
          except: ['./types.ts'],
          message: `src/${folder} and src/${neighbour} are neighbours: they may know each other's types.ts only.`,
        })
      }
    }
  }
  for (const forbidden of floors.flat()) {
    if (forbidden === 'base') continue
    result.push({
      target: './src/cli',
      from: `./src/${forbidden}`,
      message: 'src/cli talks to the daemon over HTTP alone, as any client does.',
    })
    result.push({
      target: './src/advise',
      from: `./src/${forbidden}`,
      message: 'src/advise is a client too: it knows base and the JSON of src/compare.',
    })
    result.push({
      target: './src/compare',
      from: `./src/${forbidden}`,
      message: 'src/compare is a client too: it knows base and the CLI, and asks the daemon over HTTP.',
    })
  }
  return result
}

export default tseslint.config(
  { ignores: ['dist/**', 'build/**', 'node_modules/**', '.cache/**', 'docs/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommended],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    plugins: { 'import-x': importX },
    settings: {
      // Sources say './x.js' (what Node will load) and mean './x.ts'.
      'import-x/resolver-next': [createNodeResolver({ extensionAlias: { '.js': ['.ts', '.js'] }, extensions: ['.ts', '.js'] })],
    },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones: zones() }],
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false, attributes: false } }],
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unnecessary-type-assertion': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unsafe-assignment': 'error',
      '@typescript-eslint/no-unsafe-member-access': 'error',
      '@typescript-eslint/no-unsafe-call': 'error',
      '@typescript-eslint/no-unsafe-return': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
      // `import { type X }` still loads the module at run time (verbatimModuleSyntax): `import type { X }` does not.
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/no-empty-function': 'off',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-control-regex': 'off', // terminals and tar names are made of control characters
      'no-console': 'error', // the daemon logs through base/log, the CLI writes to its own streams
    },
  },
  {
    // Tests may look at what JSON.parse gave them without a schema.
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      'no-console': 'off',
    },
  },
  { files: ['**/*.js', '**/*.mjs'], languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly', setTimeout: 'readonly' } } },
)
