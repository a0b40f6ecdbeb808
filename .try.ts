import { createCa, createCrl } from '/work/main/src/cli/pki.ts'
import { readCrlFile, RevocationLists } from '/work/main/src/registry/crl.ts'
import { randomBytes } from 'node:crypto'
const ca=createCa({commonName:'x'}); const r:string[]=[]; for(let i=0;i<1e6;i++) r.push(randomBytes(16).toString('hex'))
let t0=performance.now(); const c=createCrl(ca,{revoked:r}); console.log('create',performance.now()-t0)
t0=performance.now(); const l=readCrlFile(c.der) as any; console.log('parse',performance.now()-t0)
t0=performance.now(); const l2=readCrlFile(Buffer.from(c.pem)) as any; console.log('parse pem',performance.now()-t0)
t0=performance.now(); const ls=new RevocationLists(l.lists,[ca.cert]); console.log('verify',performance.now()-t0)
const s=Buffer.from(r[5]!,'hex'); t0=performance.now(); for(let i=0;i<10000;i++) ls.statusOf(ca.cert,s); console.log('status us',(performance.now()-t0)/10)
