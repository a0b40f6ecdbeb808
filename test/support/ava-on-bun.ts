// AVA ends its workers with `v8.takeCoverage()`, which Bun does not have. Drop when Bun gains it.
import v8 from 'node:v8'

v8.takeCoverage = () => {}
