import t from 'tap'
import { sliceOfDay } from './fixtures/proof-size.ts'

await t.test('the days share the cells of a proof: each is run once, and no day runs more than its share', async t => {
  for (const [count, size] of [[216, 24], [54, 10], [7, 3], [5, 5], [2, 9], [0, 4]] as const) {
    const cells = Array.from({ length: count }, (_, n) => n)
    const days = Math.max(1, Math.ceil(count / size))
    const slices = Array.from({ length: days }, (_, day) => sliceOfDay(cells, size, 20_000 * days + day))
    t.strictSame(slices.flat().sort((a, b) => a - b), cells, `${count} cells in ${days} days`)
    t.ok(slices.every(slice => slice.length <= size), `at most ${size} a day`)
    t.strictSame(sliceOfDay(cells, size, 20_000 * days + days), slices[0], 'the first share comes again')
  }
})

await t.test('one share holds several kinds of fault', async t => {
  const cells = Array.from({ length: 216 }, (_, n) => ({ kind: n % 6 }))
  for (let day = 0; day < 9; day++) t.ok(new Set(sliceOfDay(cells, 24, day).map(({ kind }) => kind)).size >= 4, `day ${day}`)
})
