import { closeSync, openSync } from 'node:fs'
import test from 'ava'
import { descriptorLimit, openDescriptors, parseDescriptorLimit } from '../../src/control/descriptors.ts'

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max processes             unlimited            unlimited            processes
Max open files            1024                 524288               files
Max locked memory         8388608              8388608              bytes
`

const onLinux = process.platform === 'linux' ? test : test.skip

test('the soft limit counts', (t) => {
  t.is(parseDescriptorLimit(LIMITS), 1024)
})

test('unlimited, and a text without the line, are no limit', (t) => {
  t.is(parseDescriptorLimit(LIMITS.replace('1024  ', 'unlimited')), null)
  t.is(parseDescriptorLimit(''), null)
})

onLinux('this process has a limit and knows it', (t) => {
  const limit = descriptorLimit()
  t.true(limit === null || limit > 0)
})

onLinux('an open file is counted', (t) => {
  const before = openDescriptors()
  const files = Array.from({ length: 10 }, () => openSync('/dev/null', 'r'))
  t.is(openDescriptors(), before + 10)
  for (const file of files) closeSync(file)
})
