/* global require */
// The Node service of the Compose test: asks the Python one, by its name, and says what that said.
'use strict'
const http = require('node:http')

const backend = process.env.BACKEND || 'http://app:8000'
http
  .createServer((request, response) => {
    http
      .get(backend + request.url, (answer) => {
        response.writeHead(answer.statusCode, { 'content-type': 'application/json', 'x-through': process.version })
        answer.pipe(response)
      })
      .on('error', (error) => {
        response.writeHead(502)
        response.end(String(error))
      })
  })
  .listen(3000, () => console.log('node listens on 3000'))
