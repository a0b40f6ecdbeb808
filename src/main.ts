#!/usr/bin/env bun
import { settleEngine } from './cli/engine.ts'

settleEngine()
// Not before: it would be read twice.
const { program } = await import('./cli/program.ts')
await program().parseAsync()
