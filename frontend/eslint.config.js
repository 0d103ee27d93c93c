import js from '@eslint/js'
import reactHooks from 'eslint-plugin-react-hooks'
import tseslint from 'typescript-eslint'

export default tseslint.config(
  {
    ignores: [
      '**/.test-*/',
      '**/dist/',
      '**/.next/',
      '**/out/',
      '**/next-env.d.ts',
      '**/test-results/',
    ],
  },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      // A number in a text says what it says.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // It believes that a flag stays as it was across calls and `await`, and that
      // every global of a browser is there everywhere.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // `() => emit()` is short, and nobody reads what it returns.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
    },
  },
  {
    files: ['**/*.{ts,tsx}'],
    ...reactHooks.configs.flat['recommended-latest'],
  },
  {
    // A test's component may count how often it renders.
    files: ['**/test/**/*.tsx'],
    rules: { 'react-hooks/globals': 'off' },
  },
  {
    // Playwright reads what a fixture needs from the braces, though it be nothing.
    files: ['e2e/**'],
    rules: { 'no-empty-pattern': 'off' },
  },
  {
    files: ['**/*.{js,mjs}'],
    ...tseslint.configs.disableTypeChecked,
  },
)
