import test from 'ava'
import { markdownTable, plainTable } from '../../bench/harness/table.ts'

test('columns are as wide as their widest cell, the first to the left', (t) => {
  t.is(
    plainTable(
      ['case', 'µs'],
      [
        ['brokergate', '1.2'],
        ['nginx', '10'],
      ],
    ),
    ['case         µs', 'brokergate  1.2', 'nginx        10'].join('\n'),
  )
})

test('a row that is short has empty cells', (t) => {
  t.is(plainTable(['a', 'b'], [['x']]), 'a  b\nx')
})

test('a page for GitHub keeps its bars in cells', (t) => {
  t.is(markdownTable(['a', 'b'], [['x|y', '1']]), '| a | b |\n| --- | --: |\n| x\\|y | 1 |')
})
