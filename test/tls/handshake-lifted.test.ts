import test from 'ava'
import { behavesLikeAHandshake } from './handshake-conformance.ts'

// On Node nothing can be lifted: there it is the portable transport once more, which is what was promised.
behavesLikeAHandshake(test, { lift: true })
