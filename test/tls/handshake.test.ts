import test from 'ava'
import { behavesLikeAHandshake } from './handshake-conformance.ts'

behavesLikeAHandshake(test, { lift: false })
